import re
import shlex

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python (\w+\.py .*?[^\\])$", README, re.MULTILINE | re.DOTALL)
DEMO = (ROOT / "sample_data" / "demo.sh").read_text(encoding="utf-8").replace("$out", "demo_output")


def words(text):
    return shlex.split(text.replace("\\\n", " "), comments=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(".py")[0])
def test_the_commands_of_the_readme_are_those_that_the_demo_runs(command):
    demo = re.findall(r"^python (\w+\.py .*?[^\\])$", DEMO, re.MULTILINE | re.DOTALL)
    assert sorted(words(command)) in [sorted(words(line)) for line in demo]


def test_the_readme_shows_every_stage():
    stages = {"create_pretraining_data", "run_pretraining", "run_classifier", "extract_features"}
    assert {command.split(".py")[0] for command in COMMANDS} == stages


@pytest.mark.parametrize("page", ["formats", "errors", "decisions", "running"])
def test_pages_that_the_readme_names_exist(page):
    assert f"docs/{page}.md" in README
    assert (ROOT / "docs" / f"{page}.md").exists()
