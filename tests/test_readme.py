import re
import shlex
import shutil

import pytest
from conftest import ROOT, run_stage

from bert_toolkit.__main__ import COMMANDS as COMMAND_MODULES

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^(?:python (?=\w+\.py )|bert )([\w-]+(?:\.py)? .*?[^\\])$", README, re.MULTILINE | re.DOTALL
)
DEMO = (ROOT / "sample_data" / "demo.sh").read_text(encoding="utf-8").replace("$out", "demo_output")


def words(text):
    return shlex.split(text.replace("\\\n", " "), comments=True)


def in_demo(command):
    demo = re.findall(r"^python (\w+\.py .*?[^\\])$", DEMO, re.MULTILINE | re.DOTALL)
    return sorted(words(command)) in [sorted(words(line)) for line in demo]


def test_the_demo_runs_the_main_commands_of_the_readme():
    stages = {"create_pretraining_data", "run_pretraining", "run_classifier", "extract_features"}
    assert {command.split(".py")[0] for command in COMMANDS if in_demo(command)} == stages


@pytest.mark.slow
def test_the_other_commands_of_the_readme_run(tmp_path, model_dir):
    """As a reader would, after the demo."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    for name in ("pretrained", "reviews"):
        shutil.copytree(model_dir, tmp_path / "demo_output" / name)
    others = [command for command in COMMANDS if not in_demo(command)]
    assert len(others) >= 3
    for command in others:
        stage, *arguments = words(command)
        module = COMMAND_MODULES.get(stage, stage.removesuffix(".py")).split(".")[-1]
        result = run_stage(module, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "page",
    [
        "formats",
        "errors",
        "decisions",
        "running",
        "performance",
        "classification",
        "features",
        "export",
    ],
)
def test_pages_that_the_readme_names_exist(page):
    assert f"docs/{page}.md" in README
    assert (ROOT / "docs" / f"{page}.md").exists()
