"""What several tests use: the golden values, small models, and stages run as a user runs them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from bert_toolkit import tensorflow_start

tensorflow_start.prepare()  # as every command does

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """Directory of values computed with the published scripts."""
    return GOLDEN


@pytest.fixture
def model_dir(tmp_path):
    """A complete directory of the golden model, in Google's layout: 2 layers, 32 wide, 128 positions."""
    directory = tmp_path / "golden_model"
    shutil.copytree(GOLDEN / "model", directory)
    shutil.copy(GOLDEN / "vocab.txt", directory)
    return directory


@pytest.fixture
def reviews(tmp_path):
    """A tiny sentiment data set in SST-2's layout."""
    directory = tmp_path / "reviews"
    directory.mkdir()
    good = [
        "the people rejoice with gladness",
        "blessed is the house of mercy",
        "a song of joy and peace",
    ]
    bad = [
        "the wicked perish in darkness",
        "woe unto the house of violence",
        "a cry of sorrow and wrath",
    ]
    rows = [
        f"{text} {number}\t{label}"
        for number in range(8)
        for label, texts in enumerate((bad, good))
        for text in texts
    ]
    for name, part in (("train", rows[:36]), ("dev", rows[36:])):
        (directory / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]) + "\n")
    tests = [f"{100 + number}\t{text}" for number, text in enumerate(good + bad)]
    (directory / "test.tsv").write_text("\n".join(["index\tsentence", *tests]) + "\n")
    return directory


@pytest.fixture
def pretraining_data(tmp_path):
    """Instances of the golden corpus (max_seq_length 128, 20 predictions) as a TFRecord file with its note."""
    import create_pretraining_data

    path = tmp_path / "pretrain.tfrecord"
    create_pretraining_data.run(
        create_pretraining_data.Options(
            input_file=str(GOLDEN / "corpus.txt"),
            output_file=str(path),
            vocab_file=str(GOLDEN / "vocab.txt"),
            dupe_factor=2,
        )
    )
    return path


def run_stage(stage, *arguments, cwd=None, **popen):
    """Runs a stage, or another command, as a user would; returns the finished process.

    Arguments are strings; a dict among them stands for --name=value flags.
    """
    words = []
    for argument in arguments:
        words += (
            [f"--{name}={value}" for name, value in argument.items()]
            if isinstance(argument, dict)
            else [argument]
        )
    script = ROOT / f"{stage}.py"
    program = [script] if script.exists() else ["-m", f"bert_toolkit.commands.{stage}"]
    environment = {**popen.pop("env", os.environ), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, program), *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
        env=environment,
        **popen,
    )


@pytest.fixture
def golden_instances():
    """Flag set -> {"flags", "files"}: the instances that the published script makes of the golden corpus."""
    return json.loads((GOLDEN / "pretraining_instances.json").read_text())


@pytest.fixture
def distill_reviews(tmp_path, reviews, model_dir, monkeypatch):
    """Trains a teacher; returns the function that runs bert distill with it, for the metrics."""
    import run_classifier
    from bert_toolkit.commands import distill

    monkeypatch.chdir(tmp_path)
    common = {
        "train_file": str(reviews / "train.tsv"),
        "eval_file": str(reviews / "dev.tsv"),
        "max_seq_length": 32,
        "train_batch_size": 9,
        "learning_rate": 2e-3,
    }
    run_classifier.run(
        run_classifier.Options(
            **common, bert_dir=str(model_dir), output_dir="teacher", num_train_epochs=10.0
        )
    )

    def run(**flags):
        chosen = {**common, "teacher_dir": "teacher", "output_dir": "out", **flags}
        return distill.run(distill.Options(**chosen))

    return run
