"""Choosing the best model, aids and predictions, through the stage as a user runs it."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import run_stage

import run_classifier
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import baselines
from bert_toolkit.errors import UserError
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks.classification import classification, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.training import training_step


@pytest.fixture
def run(tmp_path, reviews, model_dir, monkeypatch):
    """Runs the stage on the little reviews as files of one's own; returns the metrics."""
    monkeypatch.chdir(tmp_path)  # paths are relative, as most are on a command line

    def run(**flags):
        chosen = {
            "train_file": str(reviews / "train.tsv"),
            "eval_file": str(reviews / "dev.tsv"),
            "bert_dir": str(model_dir),
            "output_dir": "out",
            "max_seq_length": 32,
            "train_batch_size": 9,
            "num_train_epochs": 2.0,
            "learning_rate": 1e-3,
            **flags,
        }
        return run_classifier.run(run_classifier.Options(**chosen))

    return run


def lines_of(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_the_best_model_is_kept_and_used(tmp_path, run, caplog):
    caplog.set_level("INFO")
    metrics = run(evaluate_every="epoch", num_train_epochs=4.0)
    out = tmp_path / "out"
    score = json.loads((out / "best" / "score.json").read_text())
    assert metrics["eval_accuracy"] == pytest.approx(score["score"])
    assert metrics["global_step"] == score["step"]
    assert score["last_step"] == 16
    assert caplog.text.count("accuracy") >= 4
    # It is a whole model, without what training needs.
    names = [name for name, _ in tf.train.list_variables(str(out / "best"))]
    assert "output_weights" in names
    assert not any("adam" in name for name in names)
    again = run(bert_dir=str(out / "best"), output_dir=str(tmp_path / "again"), do_eval=True)
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    last = run(do_eval=True, checkpoint="last")
    assert last["global_step"] == 16


@pytest.mark.slow
def test_training_stops_when_nothing_gets_better(tmp_path, run, caplog):
    caplog.set_level("INFO")
    flags = {"evaluate_every": "2", "early_stopping_patience": 2, "learning_rate": 0.0}
    run(num_train_epochs=20.0, **flags)
    assert "not better for 2 evaluations: stopping" in caplog.text
    assert tf.train.load_variable(str(tmp_path / "out"), "global_step") == 6
    run(num_train_epochs=20.0, **flags)
    assert "the run was stopped early before" in caplog.text
    run(num_train_epochs=1.0, overwrite=True, **flags)  # forgets the best model too
    assert tf.train.load_variable(str(tmp_path / "out"), "global_step") == 4


@pytest.mark.slow
def test_a_metric_that_is_none(run):
    with pytest.raises(UserError, match="--best_metric=f2: expected one of loss, accuracy"):
        run(evaluate_every="2", best_metric="f2")


@pytest.mark.slow
def test_several_runs_make_a_table(tmp_path, run, reviews):
    metrics = run(num_runs=2, predict_file=str(reviews / "test.tsv"), id_column="index")
    out = tmp_path / "out"
    header, *rows = lines_of(out / "runs.tsv")
    assert [row[0] for row in rows] == ["run_1", "run_2", "mean", "deviation"]
    assert [row[1] for row in rows[:2]] == ["12345", "12346"]
    column = header.index("eval_accuracy")
    values = [float(row[column]) for row in rows]
    assert values[2] == pytest.approx(np.mean(values[:2]), abs=1e-6)
    assert values[3] == pytest.approx(np.std(values[:2], ddof=1), abs=1e-6)
    assert metrics["eval_accuracy"] == pytest.approx(max(values[:2]), abs=1e-6)
    assert tf.train.latest_checkpoint(str(out / "best"))
    assert len(lines_of(out / "test_predictions.tsv")) == 7
    # The model of the runs is found by the directory alone.
    (out / "test_predictions.tsv").unlink()
    run(bert_dir=None, do_predict=True, predict_file=str(reviews / "test.tsv"), id_column="index")
    assert len(lines_of(out / "test_predictions.tsv")) == 7


CONSTANT_RATE = {"learning_rate_schedule": "constant", "warmup_proportion": 0.0}


@pytest.mark.slow
def test_averaged_weights_are_the_model_and_survive_an_interruption(run):
    flags = {"ema_decay": 0.9, **CONSTANT_RATE}
    metrics = run(evaluate_every="epoch", best_metric="loss", checkpoint="last", **flags)
    last = tf.train.latest_checkpoint("out")
    averages = checkpoint_files.read(last)
    for name, value in averages.items():
        np.testing.assert_array_equal(value, tf.train.load_variable(last, f"{name}/ema"))
    # What is trained is as ever; the model is another.
    plain = run(output_dir="plain", **CONSTANT_RATE)
    weights = checkpoint_files.read(tf.train.latest_checkpoint("plain"))
    for name, value in weights.items():
        np.testing.assert_allclose(value, tf.train.load_variable(last, name), atol=1e-5)
    assert metrics["eval_loss"] != pytest.approx(plain["eval_loss"], rel=0.01)
    # Evaluated while training, kept as the best, and read by another command.
    score = json.loads(pathlib.Path("out/best/score.json").read_text())
    assert score["last_score"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    assert score["step"] == score["last_step"]
    best = checkpoint_files.read(tf.train.latest_checkpoint("out/best"))
    np.testing.assert_array_equal(best["output_weights"], averages["output_weights"])
    again = run(bert_dir="out", output_dir="again", do_eval=True)
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    # A run in two parts has the averages of the run in one.
    run(output_dir="parts", num_train_epochs=1.0, **flags)
    run(output_dir="parts", **flags)
    parts = checkpoint_files.read(tf.train.latest_checkpoint("parts"))
    for name, value in averages.items():
        np.testing.assert_allclose(parts[name], value, atol=1e-5, err_msg=name)
    with pytest.raises(UserError, match="trained with other flags .--freeze, --ema_decay"):
        run(output_dir="plain", num_train_epochs=3.0, **flags)


@pytest.mark.slow
def test_layers_are_trained_one_after_the_other(run, model_dir, caplog):
    run(unfreeze_schedule="epoch")
    assert (
        "--unfreeze_schedule=epoch: of 2 layers the upper 1 are trained in 8 steps, and not the"
        " embeddings; a layer more every 2 steps would train all" in caplog.text
    )
    before = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    after = checkpoint_files.read(tf.train.latest_checkpoint("out"))
    moved = {
        re.match(r"bert/(?:encoder/)?(\w+)", name)[1]
        for name, value in after.items()
        if name in before and not np.array_equal(value, before[name])
    }
    assert moved == {"layer_1", "pooler"}
    caplog.clear()
    run(unfreeze_schedule="2", output_dir="all")
    assert "--unfreeze_schedule" not in caplog.text
    after = checkpoint_files.read(tf.train.latest_checkpoint("all"))
    name = "bert/embeddings/position_embeddings"
    assert not np.array_equal(after[name], before[name])


@pytest.mark.slow
def test_dropout_by_flag_is_that_of_the_config(run, model_dir):
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    run(output_dir="flag", **dict.fromkeys(names, 0.3))
    path = model_dir / "bert_config.json"
    config = json.loads(path.read_text())
    kept = json.loads(pathlib.Path("flag/bert_config.json").read_text())
    assert {name: kept[name] for name in config} == config
    run(output_dir="other")
    path.write_text(json.dumps({**config, **dict.fromkeys(names, 0.3)}))
    run(output_dir="config")
    flag, other, in_config = (
        tf.train.load_variable(directory, "output_weights")
        for directory in ("flag", "other", "config")
    )
    np.testing.assert_allclose(flag, in_config, atol=1e-6)
    assert not np.allclose(flag, other, atol=1e-4)


@pytest.mark.slow
def test_r_drop_at_the_command_line(run, tmp_path):
    metrics = run(rdrop_alpha=1.0, num_train_epochs=8.0)
    assert metrics["eval_accuracy"] > 0.9
    first = json.loads(pathlib.Path("out/training_log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(first["label_loss"] + first["rdrop_loss"])
    (tmp_path / "n.tsv").write_text("text\tlabel\nlight\t1.5\nwoe\t-0.5\n")
    with pytest.raises(UserError, match="--rdrop_alpha: numbers are to be predicted, not labels"):
        run(train_file="n.tsv", eval_file=None, rdrop_alpha=1.0, output_dir="numbers")


def test_flags_of_rates_are_those_of_the_optimizer():
    options = run_classifier.Options(
        train_file="x",
        output_dir="out",
        learning_rate=5e-5,
        head_learning_rate=1e-3,
        unfreeze_schedule="epoch",
        ema_decay=0.9,
    )
    training = training_step.Training.of_finetuning(options, 100, 320)
    assert training.settings.head_factor == pytest.approx(20.0)
    assert training.settings.unfreeze_steps == 10
    assert training.settings.ema_decay == 0.9
    assert training.num_warmup_steps == 10


@pytest.mark.slow
def test_the_same_rows_in_any_file_give_the_same_model(tmp_path, run, reviews):
    rows = [line.split("\t") for line in (reviews / "train.tsv").read_text().splitlines()]
    rows[1][0] = 'with "quotes"'
    (reviews / "train.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    with open(tmp_path / "a.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(rows)
    with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(zip(rows[0], row))) + "\n" for row in rows[1:])
    weights = []
    for name in ("reviews/train.tsv", "a.csv", "a.jsonl"):
        out = tmp_path / f"out-{name[-5:]}"
        run(train_file=str(tmp_path / name), output_dir=str(out))
        weights.append(tf.train.load_variable(str(out), "output_weights"))
    for other in weights[1:]:
        np.testing.assert_allclose(weights[0], other, atol=1e-6)


@pytest.mark.slow
def test_the_worst_errors_and_the_report(tmp_path, run):
    run()
    out = tmp_path / "out"
    header, *rows = lines_of(out / "eval_top_losses.tsv")
    assert header == ["loss", "id", "line", "label", "prediction", "text"]
    assert len(rows) == 12
    losses = [float(row[0]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    loss = json.loads((out / "eval_results.json").read_text())["eval_loss"]
    assert np.mean(losses) == pytest.approx(loss, abs=1e-4)
    assert "rows: true label, columns: predicted" in (out / "eval_report.txt").read_text()


@pytest.mark.slow
def test_calibration_is_kept_and_used(tmp_path, run, reviews, caplog):
    caplog.set_level("INFO")
    run(calibrate=True, reject_below="50%")
    stored = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert "temperature " in caplog.text
    assert stored["reject_below"] > 0.5
    run(do_predict=True, predict_file=str(reviews / "test.tsv"))
    _, *rows = lines_of(tmp_path / "out" / "test_predictions.tsv")
    for row in rows:
        assert (row[1] == "other") is (max(map(float, row[2:4])) < stored["reject_below"])


def multi_label_rows(path, header="text\tlabel"):
    texts = [
        ("light and peace", "good"),
        ("woe and darkness", "bad"),
        ("joy and woe", "good,bad"),
        ("and the", ""),
    ]
    path.write_text("\n".join([header] + [f"{t} {n}\t{label}" for n in range(8) for t, label in texts]) + "\n")  # fmt: skip


@pytest.mark.slow
def test_several_labels_and_numbers(tmp_path, run):
    multi_label_rows(tmp_path / "m.tsv")
    metrics = run(
        train_file=str(tmp_path / "m.tsv"),
        eval_file=str(tmp_path / "m.tsv"),
        predict_file=str(tmp_path / "m.tsv"),
        problem_type="multi_label",
        num_train_epochs=15.0,
        class_weights=["balanced"],
    )
    assert metrics["eval_f1_micro"] > 0.9
    header, *rows = lines_of(tmp_path / "out" / "test_predictions.tsv")
    assert header == ["index", "prediction", "probability_bad", "probability_good"]
    assert {row[1] for row in rows} <= {"", "bad", "good", "bad,good"}

    (tmp_path / "n.tsv").write_text(
        "text\tlabel\n" + "".join(f"light {n}\t1.5\nwoe {n}\t-0.5\n" for n in range(18))
    )
    metrics = run(
        train_file=str(tmp_path / "n.tsv"),
        eval_file=str(tmp_path / "n.tsv"),
        predict_file=str(tmp_path / "n.tsv"),
        output_dir=str(tmp_path / "numbers"),
        num_train_epochs=10.0,
    )
    assert metrics["eval_pearson"] > 0.9
    header, *rows = lines_of(tmp_path / "numbers" / "test_predictions.tsv")
    assert header == ["index", "prediction"]
    assert float(rows[0][1]) > 0.5 > float(rows[1][1])


@pytest.mark.slow
def test_windows_of_long_texts_are_averaged(tmp_path, run, reviews):
    long = " ".join(["a song of joy and peace"] * 6)
    (tmp_path / "long.tsv").write_text(f"sentence\n{long}\na cry of sorrow\n")
    run(doc_stride=8, max_seq_length=16)
    run(
        do_predict=True,
        predict_file=str(tmp_path / "long.tsv"),
        doc_stride=8,
        max_seq_length=16,
    )
    _, *rows = lines_of(tmp_path / "out" / "test_predictions.tsv")
    assert [row[0] for row in rows] == ["0", "1"]


@pytest.mark.slow
def test_a_pipeline(tmp_path, run):
    run(eval_file=None)
    texts = "the people rejoice with gladness\nthe wicked perish in darkness\n\n"
    result = run_stage(
        "run_classifier",
        {"output_dir": tmp_path / "out", "predict_file": "-", "max_seq_length": 32},
        input=texts,
    )
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert {row[1] for row in rows[:2]} <= {"0", "1"}
    assert rows[2][1:] == [""] * 4
    assert all(len(row) == 5 for row in rows)
    assert "1 blank lines have an empty answer (lines 3)" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"evaluate_every": "often"}, "--evaluate_every=often: expected epoch, or a number"),
        ({"unfreeze_schedule": "0"}, "--unfreeze_schedule=0: expected epoch, or a number of steps"),
        ({"learning_rate": 0.0, "head_learning_rate": 1.0}, "goes with a --learning_rate above 0"),
        ({"early_stopping_patience": 2}, "--early_stopping_patience goes with --evaluate_every"),
        ({"oversample": True, "class_weights": ["balanced"]}, "choose one"),
        ({"class_weights": ["0:2"]}, "expected balanced, or a weight for each label: 0:1,1:1"),
        ({"checkpoint": "best"}, "--checkpoint=best: --evaluate_every says when"),
        ({"eval_file": None, "evaluate_every": "2"}, "nothing to evaluate on: pass --eval_file"),
        ({"task_name": "sst-2"}, "--data_dir is required with --task_name"),
    ],
)
def test_flags_that_do_not_fit(run, flags, message):
    with pytest.raises(UserError, match=message):
        run(**flags)


def test_evaluation_while_training_is_for_one_host(run, monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UserError, match="--evaluate_every: not on several hosts"):
        run(evaluate_every="epoch")


def uneven(**flags):
    rows = [task_data.Example("0", "t", None, label) for label in "aaaaaab"]
    data = task_data.Data(Problem(SINGLE, ("a", "b")), "accuracy", rows, {}, {})
    options = type("Options", (), {"class_weights": None, "oversample": False, **flags})
    return data, options


def test_weights_and_copies_of_rare_labels():
    assert classification.class_weights(*uneven(class_weights=["balanced"])) == [7 / 12, 7 / 2]
    assert classification.class_weights(*uneven(class_weights=["b:3", "a:1"])) == [1.0, 3.0]
    assert classification.class_weights(*uneven()) is None
    assert classification.copies(*uneven(oversample=True)) == [1] * 6 + [6]


@pytest.mark.slow
def test_submissions_to_glue(tmp_path, reviews, model_dir):
    options = run_classifier.Options(
        task_name="sst-2",
        data_dir=str(reviews),
        bert_dir=str(model_dir),
        output_dir=str(tmp_path / "out"),
        do_train=True,
        do_predict=True,
        num_train_epochs=1.0,
    )
    run_classifier.run(options)
    header, *rows = lines_of(tmp_path / "out" / "SST-2.tsv")
    assert header == ["index", "prediction"]
    assert [row[0] for row in rows] == [str(100 + number) for number in range(6)]


def test_baselines(tmp_path, reviews, capsys):
    keywords = tmp_path / "words.json"
    keywords.write_text('{"1": ["rejoice", "blessed", "joy"], "0": ["wicked", "woe", "cry"]}')
    found = baselines.run(
        baselines.Options(
            task_name="sst-2",
            data_dir=str(reviews),
            keywords=str(keywords),
            output_dir=str(tmp_path / "out"),
        )
    )
    assert found["majority"]["eval_accuracy"] == 0.5
    assert found["keywords"]["eval_accuracy"] == 1.0
    assert found["tf-idf, logistic regression"]["eval_accuracy"] == 1.0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "baselines.tsv").read_text() == printed
    assert printed.splitlines()[0].startswith("baseline\teval_loss\teval_accuracy")


def test_baselines_of_other_problems(tmp_path):
    multi_label_rows(tmp_path / "m.tsv")
    found = baselines.run(
        baselines.Options(
            train_file=str(tmp_path / "m.tsv"), eval_split=0.25, problem_type="multi_label"
        )
    )
    assert found["tf-idf, logistic regression"]["eval_f1_micro"] > 0.9
    with pytest.raises(UserError, match="--eval_file or --eval_split is required"):
        baselines.Options(train_file="x.tsv")
    assert DataOptions(train_file="x").is_custom
