"""Bad input of the model stages: one sentence, and nothing half-written."""

import json
import os
import subprocess

import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN
from stage_runs import (
    LINES,
    classification,
    extraction,
    pretraining,
)

import extract_features
import run_classifier
import run_pretraining
from bert_toolkit.errors import UserError


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


@pytest.fixture
def broken(tmp_path, pretraining_data, reviews, model_dir):
    """Makes one bad input by name and returns the flags to use it with."""
    config = json.loads((model_dir / "bert_config.json").read_text())

    def make(kind):
        config_file = tmp_path / "config.json"
        vocab = (model_dir / "vocab.txt").read_text()
        if kind == "cut record":
            short = tmp_path / "short.tfrecord"
            short.write_bytes(pretraining_data.read_bytes()[:50_000])
            return {"input_file": str(short)}
        if kind == "cut file":
            pretraining_data.write_bytes(pretraining_data.read_bytes()[:50_000])
        elif kind == "other model's vocabulary":
            (model_dir / "vocab.txt").write_text("\n".join(vocab.splitlines()[:100]) + "\n")
        elif kind == "missing key":
            config_file.write_text(
                json.dumps({k: v for k, v in config.items() if k != "hidden_size"})
            )
            return {"bert_config_file": str(config_file)}
        elif kind == "heads":
            config_file.write_text(json.dumps({**config, "num_attention_heads": 5}))
            return {"bert_config_file": str(config_file)}
        elif kind == "wider":
            config_file.write_text(json.dumps({**config, "hidden_size": 64}))
            return {"bert_config_file": str(config_file)}
        elif kind == "unknown label":
            (reviews / "dev.tsv").write_text("sentence\tlabel\nfine\t1\nodd\tmaybe\n")
        elif kind == "extra tab":
            (reviews / "train.tsv").write_text("sentence\tlabel\nfine\t1\nodd\t\t0\n")
        elif kind == "empty tsv":
            (reviews / "train.tsv").write_text("")
        elif kind == "casing":
            (model_dir / "tokenizer_config.json").write_text('{"do_lower_case": true}')
            return {"do_lower_case": False}
        return {}

    return make


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("", {"input_file": None}, "--input_file is required"),
        ("", {"do_train": False}, "nothing to do: pass --do_train, --do_eval or both"),
        ("", {"bert_dir": None}, r"--bert_config_file is required \(or --bert_dir\)"),
        ("", {"bert_dir": "nowhere"}, "--bert_dir=nowhere: no such directory"),
        ("", {"input_file": "nowhere"}, "no file matches 'nowhere'"),
        ("", {"output_dir": __file__}, "a file; expected a directory"),
        (
            "",
            {"max_seq_length": 64},
            "--max_seq_length=64, but .* was made with 128. Pass --max_seq_length=128",
        ),
        (
            "",
            {"max_predictions_per_seq": 5},
            "Pass --max_predictions_per_seq=20 or make the data again",
        ),
        (
            "",
            {"max_seq_length": 256},
            "max_position_embeddings 128; pass --max_seq_length=128 or less",
        ),
        ("", {"init_checkpoint": "nowhere"}, "--init_checkpoint=nowhere: no checkpoint there"),
        ("cut file", {}, "cut short or replaced"),
        pytest.param(
            "cut record",
            {"num_train_steps": 50},
            r"short.tfrecord record \d+: cut short",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "",
            {"learning_rate": 1e30},
            "the loss is not a number any more; the last checkpoint is",
            marks=pytest.mark.slow,
        ),
        ("missing key", {}, "no hidden_size"),
        ("heads", {}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ("wider", {}, "has shape .*, but the model's config makes it"),
    ],
)
def test_bad_input_of_pretraining(
    tmp_path, pretraining_data, model_dir, broken, kind, flags, message
):
    with pytest.raises(UserError, match=message):
        run_pretraining.run(
            pretraining(
                tmp_path, pretraining_data, model_dir, **{"do_train": True, **broken(kind), **flags}
            )
        )


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("", {"do_train": False}, "nothing to do"),
        (
            "",
            {"task_name": "sst2"},
            "unknown task. Known: cola, sst-2, .* Did you mean sst-2?",
        ),
        ("", {"data_dir": "nowhere"}, "--data_dir=nowhere: no train.tsv in it"),
        (
            "",
            {"task_name": "mrpc"},
            "train.tsv: columns 'sentence', 'label', as in train.tsv of sst-2; expected the header",
        ),
        ("", {"num_train_epochs": 0.1}, "nothing to train: 36 rows"),
        ("", {"bert_dir": None}, "--vocab_file is required"),
        (
            "other model's vocabulary",
            {},
            "has 100 entries, .* says 4,000: 3,900 less. Use this model's own vocabulary",
        ),
        ("unknown label", {"do_eval": True}, "dev.tsv line 3: label 'maybe', expected one of 0, 1"),
        (
            "extra tab",
            {},
            r"train.tsv line 3: 3 columns, expected 2 \(sentence, label\). Remove the extra tab.",
        ),
        ("empty tsv", {}, "train.tsv: no row to use in it"),
        ("casing", {}, "--do_lower_case=False, but the tokenizer_config.json"),
    ],
)
def test_bad_input_of_the_classifier(tmp_path, reviews, model_dir, broken, kind, flags, message):
    with pytest.raises(UserError, match=message):
        run_classifier.run(
            classification(
                tmp_path, reviews, model_dir, **{"do_train": True, **broken(kind), **flags}
            )
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"layers": "-3"}, "no layer -3; the model has 2, numbered 0 to 1 or -2 to -1"),
        ({"layers": "last"}, "expected numbers separated by commas"),
        ({"input_file": "nowhere"}, "--input_file=nowhere: no such file"),
        ({"output_file": str(GOLDEN)}, "a directory; expected the name of a file"),
        ({"bert_dir": None, "bert_config_file": "x"}, "--init_checkpoint is required"),
    ],
)
def test_bad_input_of_extraction(tmp_path, model_dir, flags, message):
    with pytest.raises(UserError, match=message):
        extract_features.run(extraction(tmp_path, model_dir, LINES, **flags))


def test_extraction_of_an_empty_file(tmp_path, model_dir):
    with pytest.raises(UserError, match="empty; expected lines of text"):
        extract_features.run(extraction(tmp_path, model_dir, ""))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_stops_training_and_keeps_earlier_checkpoints(
    tmp_path, pretraining_data, model_dir
):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=False
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        options = pretraining(
            tmp_path,
            pretraining_data,
            model_dir,
            do_train=True,
            output_dir=str(disk),
            save_checkpoints_steps=2,
        )
        with pytest.raises(UserError, match="no space left on device"):
            run_pretraining.run(options)
        latest = tf.train.latest_checkpoint(str(disk))
        assert tf.train.load_variable(latest, "global_step") >= 2
    finally:
        # TensorFlow keeps its log file open; the mount goes when that is closed.
        subprocess.run(["umount", "--lazy", disk], check=True)
