"""The scripts in examples/ run from beginning to end on a few texts."""

import importlib.util
import json
import os
import random
import subprocess
import sys

import pytest
from conftest import GOLDEN, ROOT
from stage_runs import metrics_of

pytestmark = pytest.mark.slow


@pytest.fixture
def run_example(tmp_path):
    """Runs a script with `bert` and `python` of these tests; returns the finished process."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in (("bert", "-m bert_toolkit "), ("python", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
        (commands / name).chmod(0o755)

    def run(script, *arguments, **settings):
        return subprocess.run(
            ["bash", ROOT / "examples" / script, *map(str, arguments)],
            env={
                **os.environ,
                "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                **settings,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run


def test_two_lengths(tmp_path, run_example):
    pytest.importorskip("tokenizers")
    corpus = (GOLDEN / "corpus.txt").read_text()
    (tmp_path / "text.txt").write_text("\n".join([corpus] * 2))
    settings = {"STEPS": "10", "BATCH_SIZE": "2", "VOCAB_SIZE": "300"}
    result = run_example("two_lengths.sh", "text.txt", "out", **settings)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (tmp_path / "out/model/training_log.jsonl").open()]
    assert {record["step"] for record in records} >= {9, 10}
    assert metrics_of(tmp_path / "out/model")["global_step"] == 10
    note = json.loads((tmp_path / "out/train.512.tfrecord.json").read_text())
    assert (note["max_seq_length"], note["max_predictions_per_seq"]) == (512, 76)


@pytest.mark.parametrize("segmenter", ["jieba", ""])
def test_chinese_model(tmp_path, run_example, segmenter):
    pytest.importorskip("tokenizers")
    if segmenter and not importlib.util.find_spec("rjieba"):
        pytest.skip("needs rjieba")
    chance = random.Random(0)
    words = ["我", "来到", "北京", "清华大学", "今天", "天气", "很", "好", "，", "。"]
    texts = ["".join(chance.choice(words) for _ in range(20)) for _ in range(80)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    settings = {"STEPS": "4", "VOCAB_SIZE": "100", "SEGMENTER": segmenter}
    result = run_example("chinese_model.sh", "texts.txt", "out", "今天天[MASK]很好", **settings)
    assert result.returncode == 0, result.stderr
    documents = (tmp_path / "out/train.txt").read_text(encoding="utf-8").split("\n\n")
    heldout = (tmp_path / "out/heldout.txt").read_text(encoding="utf-8").split("\n\n")
    assert {len(document.split()) for document in documents + heldout} == {2}
    joined = {"".join(document.split()) for document in documents}
    assert joined | {"".join(document.split()) for document in heldout} == set(texts)
    assert len(heldout) == 4
    note = json.loads((tmp_path / "out/train.tfrecord.json").read_text())
    assert note["segmenter"] == (segmenter or None)
    assert metrics_of(tmp_path / "out/model")["global_step"] == 4
    answer = json.loads(result.stdout.splitlines()[-1])
    assert len(answer["masks"][0]) == 5


def test_an_example_says_what_it_wants(run_example):
    for script in sorted(path.name for path in (ROOT / "examples").glob("*.sh")):
        result = run_example(script)
        assert result.returncode != 0
        assert ": a " in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_further_pretraining(tmp_path, run_example, reviews, model_dir):
    (tmp_path / "more.txt").write_text("the mercy of the people\n")
    settings = {"STEPS": "4", "EPOCHS": "2", "SEEDS": "2", "ROWS": "20", "MAX_LENGTH": "16"}
    data = [reviews / "train.tsv", reviews / "dev.tsv", model_dir]
    result = run_example("further_pretraining.sh", *data, "out", "more.txt", **settings)
    assert result.returncode == 0, result.stderr
    rows = (reviews / "train.tsv").read_text().splitlines()[1:]
    texts = (tmp_path / "out/texts.txt").read_text().split("\n\n")
    expected = [row.split("\t")[0] for row in rows] + ["the mercy of the people"]
    assert list(filter(None, map(str.strip, texts))) == expected
    scores = result.stdout.splitlines()[-4:]
    assert [score.split("/")[1:3] for score in scores] == [
        [name, run] for name in ("from_after", "from_before") for run in ("run_1", "run_2")
    ]
    # The classifiers of the second kind began with what pretraining had learned.
    notes = [
        json.loads((tmp_path / f"out/{name}/run_1/trained_with.json").read_text())[
            "init_checkpoint"
        ]
        for name in ("from_before", "from_after")
    ]
    assert str(model_dir) in notes[0]
    assert "out/pretrained" in notes[1]
