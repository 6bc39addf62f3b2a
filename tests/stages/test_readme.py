import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, run_stage

from bert_toolkit.__main__ import COMMANDS as COMMAND_MODULES

README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / "docs/workflow.md").read_text(encoding="utf-8")
COMMAND = re.compile(
    r"^(?:python (?=\w+\.py )|bert )([\w-]+(?:\.py)? -.*?[^\\])$", re.MULTILINE | re.DOTALL
)
PAGES = [README, WORKFLOW]
PAGES += [
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    for name in ("answering", "fill_mask", "tagging")
]
COMMANDS = [*dict.fromkeys(command for page in PAGES for command in COMMAND.findall(page))]
DEMO = (ROOT / "sample_data" / "demo.sh").read_text(encoding="utf-8").replace("$out", "demo_output")


def words(text):
    return shlex.split(text.replace("\\\n", " "), comments=True)


def in_demo(command):
    demo = re.findall(r"^python (\w+\.py .*?[^\\])$", DEMO, re.MULTILINE | re.DOTALL)
    return sorted(words(command)) in [sorted(words(line)) for line in demo]


def test_the_demo_runs_the_main_commands_of_the_documents():
    stages = {"create_pretraining_data", "run_pretraining", "run_classifier", "extract_features"}
    stages |= {"run_squad", "run_token_classifier"}
    assert {command.split(".py")[0] for command in COMMANDS if in_demo(command)} == stages


@pytest.mark.slow
def test_the_other_commands_of_the_documents_run(tmp_path, model_dir):
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
    # One of the commands has trained a classifier; the demo's is not made here.
    [program] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    program = program.replace("demo_output/reviews", "demo_output/own")
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "(2, 32)"  # the golden model is 32 wide


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "line", "expected"),
    [
        ("tagging", "Ruth sings.", '{"text": "Ruth sings.", "entities": ['),
        ("answering", '{"question": "Who?", "context": "Ruth sings."}', '{"id": "0", "answer": "'),
    ],
)
def test_the_commands_of_the_pages_on_tasks_run(tmp_path, model_dir, page, line, expected):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    [train] = COMMAND.findall(text)
    [predict] = re.findall(r"^ +bert (\w+ -.*)$", text, re.MULTILINE)
    assert in_demo(train)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    shutil.copytree(model_dir, tmp_path / "demo_output" / "pretrained")
    for command in (train, predict):
        stage, *arguments = words(command)
        stage = COMMAND_MODULES.get(stage, stage.removesuffix(".py"))
        arguments = [
            "--num_train_epochs=1" if one.startswith("--num_train") else one for one in arguments
        ]
        result = run_stage(stage, *arguments, cwd=tmp_path, input=f"{line}\n")
        assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(expected)
    [program] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    compile(program, f"docs/{page}.md", "exec")


@pytest.mark.parametrize("page", [path.name for path in (ROOT / "docs").glob("*.md")])
def test_the_readme_names_every_page(page):
    assert f"(docs/{page}" in README


def test_the_recipes_name_every_page_and_script():
    index = (ROOT / "docs/recipes/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs/recipes").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\((\w+\.md)\)", index))
    scripts = {path.name for path in (ROOT / "examples").glob("*.sh")}
    assert scripts == set(re.findall(r"`examples/(\w+\.sh) ", index))


def test_links_of_the_readme_lead_to_headings():
    links = re.findall(r"\(docs/(\w+\.md)#([\w-]+)\)", README)
    assert links
    for page, anchor in links:
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
        anchors = [
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        ]
        assert anchor in anchors


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
