"""What is installed is all there is: the wheel has every wing, and its commands run elsewhere."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, made as pip makes it."""
    pytest.importorskip("setuptools")
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", directory, source], check=True)
    [path] = directory.glob("*.whl")
    return path


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_wheel_has_every_module(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if name.endswith(".py")}
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    stages = {name for name in tracked if "/" not in name} - {"setup.py"}
    assert packed == stages | {name for name in tracked if name.startswith("bert_toolkit/")}
    pages = {path.name for path in (ROOT / "bert_toolkit/pages").iterdir() if path.is_file()}
    assert pages <= {name.removeprefix("bert_toolkit/pages/") for name in names}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_commands_run_from_the_wheel(wheel, tmp_path):
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    for arguments in (["--help"], ["features", "--help"], ["export", "--help"]):
        result = subprocess.run(
            [sys.executable, "-m", "bert_toolkit", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout
