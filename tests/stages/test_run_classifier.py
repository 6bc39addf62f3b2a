"""Classification, run for real on a tiny model."""

import json

import numpy as np
import pytest
from stage_runs import (
    classification,
    metrics_of,
)

import run_classifier
from bert_toolkit.errors import UserError
from bert_toolkit.training import input_pipeline


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


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
def test_evaluation_does_not_depend_on_the_batch_size(tmp_path, reviews, model_dir, monkeypatch):
    sizes = []

    def counted(one, params, input_context=None):
        sizes.append(list(one.batch_sizes) or [params["batch_size"]])
        return read(one, params, input_context)

    read = input_pipeline.RecordInput.__call__
    monkeypatch.setattr(input_pipeline.RecordInput, "__call__", counted)
    run_classifier.run(
        classification(tmp_path, reviews, model_dir, do_train=True, num_train_epochs=1)
    )
    losses = [
        run_classifier.run(
            classification(
                tmp_path,
                reviews,
                model_dir,
                do_eval=True,
                eval_batch_size=size,
                batch_tokens=tokens,
            )
        )["eval_loss"]
        for size, tokens in ((1, 0), (5, 0), (1, 60), (1, 4096))
    ]
    *_, of_one, of_five, by_tokens, together = sizes
    assert (of_one, of_five) == ([1], [5])
    assert len(together) == 1 < len(by_tokens) < sum(by_tokens) == sum(together)
    assert losses == [pytest.approx(losses[0], rel=1e-5)] * 4


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (0.5, 2), (2.4, 10)])
def test_fractional_epochs(tmp_path, reviews, model_dir, epochs, steps):
    options = classification(tmp_path, reviews, model_dir, num_train_epochs=epochs, do_train=True)
    assert options.train_steps(36) == steps


@pytest.mark.slow
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
