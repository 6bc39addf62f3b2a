"""run_squad.py as a user runs it, on a tiny model; and the same model from Python and elsewhere."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, run_stage
from stage_runs import NOISE, metrics_of

import bert_toolkit
import run_squad
from bert_toolkit.commands import convert_checkpoint
from bert_toolkit.errors import UserError
from bert_toolkit.tasks.answering import answer_scores

pytestmark = pytest.mark.slow


def paragraph(number, context, *questions):
    asked = [
        {
            "id": f"{number}-{n}",
            "question": question,
            "answers": [{"text": answer, "answer_start": context.index(answer)}] if answer else [],
            "is_impossible": not answer,
        }
        for n, (question, answer) in enumerate(questions)
    ]
    return {"context": context, "qas": asked}


def write(path, with_negative=False):
    """Writes questions on 12 short texts: the answer is the word after 'king', or there is none."""
    names = "david saul abraham isaac jacob joseph".split()
    paragraphs = []
    for number, name in enumerate(names * 2):
        context = f"in those days the king {name} went up out of the land of the people"
        asked = [("who was the king", name)]
        if with_negative:
            asked.append(("how many cubits was the wall", ""))
        paragraphs.append(paragraph(number, context, *asked))
    path.write_text(
        json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})
    )
    return path


def options(tmp_path, model_dir, train=True, **flags):
    with_negative = bool(flags.get("version_2_with_negative"))
    data = write(tmp_path / "data.json", with_negative)
    files = {"train_file": str(data), "eval_file": str(data)} if train else {}
    return run_squad.Options(
        **{
            "output_dir": str(tmp_path / "out"),
            "bert_dir": str(model_dir),
            "max_seq_length": 24,
            "doc_stride": 8,
            "train_batch_size": 8,
            "num_train_epochs": 60,
            "learning_rate": 3e-3,
            "predict_file": str(data),
            **files,
            **flags,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of version 2 with its predictions: the directory, and the metrics."""
    tmp_path = tmp_path_factory.mktemp("trained")
    model = tmp_path / "golden_model"
    shutil.copytree(ROOT / "tests/golden/model", model)
    shutil.copy(ROOT / "tests/golden/vocab.txt", model)
    found = run_squad.run(options(tmp_path, model, version_2_with_negative=True))
    return tmp_path / "out", found


@pytest.mark.platform
def test_trains_evaluates_and_answers(trained):
    out, found = trained
    assert found["eval_best_f1"] > 80
    assert metrics_of(out)["eval_total"] == 24
    predictions = json.loads((out / "predictions.json").read_text())
    nbest = json.loads((out / "nbest_predictions.json").read_text())
    odds = json.loads((out / "null_odds.json").read_text())
    assert predictions.keys() == nbest.keys() == odds.keys()
    kept = json.loads((out / "task.json").read_text())["settings"]
    assert kept["version_2_with_negative"]
    assert kept["null_score_diff_threshold"] > found["eval_best_f1_thresh"]
    right = [
        predictions[f"{n}-0"] in ("david saul abraham isaac jacob joseph".split())
        for n in range(12)
    ]
    assert sum(right) >= 8
    for name, answers in nbest.items():
        assert sum(one["probability"] for one in answers) == pytest.approx(1)
        assert "" in [one["text"] for one in answers]
        best = max((one for one in answers if one["text"]), key=lambda one: one["probability"])
        expected = "" if odds[name] > kept["null_score_diff_threshold"] else best["text"]
        assert predictions[name] == expected


def test_what_is_evaluated_is_what_is_written(trained, tmp_path):
    """At the threshold of the flag, or 0; a second evaluation gives the same and keeps what was kept."""
    out, found = trained
    data = json.loads((out.parent / "data.json").read_text())["data"][0]["paragraphs"]
    true = {q["id"]: [a["text"] for a in q["answers"]] for p in data for q in p["qas"]}
    written = json.loads((out / "eval_predictions.json").read_text())
    scores = [answer_scores.best_of(answer_scores.by_words, written[n], true[n])[1] for n in true]
    assert found["eval_f1"] == pytest.approx(100 * np.mean(scores))
    # A kept threshold by which nothing is answered shows whether it is left out of account.
    shutil.copytree(out, tmp_path / "out")
    out = tmp_path / "out"
    task = json.loads((out / "task.json").read_text())
    task["settings"]["null_score_diff_threshold"] = -1e6
    (out / "task.json").write_text(json.dumps(task))
    kept = (out / "task.json").read_text()
    flags = {
        "eval_file": str(trained[0].parent / "data.json"),
        "max_seq_length": 24,
        "doc_stride": 8,
    }
    again = run_squad.run(run_squad.Options(output_dir=str(out), **flags))
    assert again["eval_f1"] == found["eval_f1"]
    assert json.loads((out / "eval_predictions.json").read_text()) == written
    assert (out / "task.json").read_text() == kept


def test_files_of_which_nothing_is_left_are_named(trained, tmp_path):
    out, _ = trained
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "a", "qas": ["?"]}]}]}))
    with pytest.raises(UserError, match="bad.json: no question in it can be used"):
        run_squad.run(
            run_squad.Options(
                output_dir=str(out), predict_file=str(path), on_bad_row="skip", max_seq_length=64
            )
        )


def test_version_1_always_answers(tmp_path, model_dir):
    found = run_squad.run(options(tmp_path, model_dir, evaluate_every="epoch", num_train_epochs=4))
    assert "eval_best_f1" not in found
    assert (tmp_path / "out/best/score.json").exists()
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert all(predictions.values())
    assert not (tmp_path / "out/null_odds.json").exists()


def test_python_and_other_batch_sizes_give_the_same_answers(trained, tmp_path):
    out, _ = trained
    predictions = json.loads((out / "predictions.json").read_text())
    data = json.loads((out.parent / "data.json").read_text())["data"][0]["paragraphs"]
    pairs = {q["id"]: (q["question"], p["context"]) for p in data for q in p["qas"]}
    with bert_toolkit.QuestionAnswerer(str(out), max_seq_length=24, doc_stride=8) as answerer:
        found = answerer.answer_all(list(pairs.values()), batch_size=5)
        alone = answerer.answer(*pairs["0-0"])
    assert alone[:3] == found[0][:3]
    assert alone.probability == pytest.approx(found[0].probability, abs=1e-6)
    assert [one.text for one in found] == [predictions[name] for name in pairs]
    for one, (_, context) in zip(found, pairs.values()):
        assert one.text == context[one.start : one.end]
        assert 0 <= one.probability <= 1


def test_lines_on_standard_input(trained):
    out, _ = trained
    context = "in those days the king david went up"
    rows = [
        {"question": "who was the king", "context": context},
        {"id": "b", "question": "who", "context": context},
    ]
    flags = {"output_dir": out, "predict_file": "-", "max_seq_length": 24, "doc_stride": 8}
    done = run_stage("run_squad", flags, input="\n".join(map(json.dumps, rows)) + "\n")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in found] == ["0", "b"]
    for row in found:
        assert row["answer"] == context[row.get("start", 0) : row.get("end", 0)]
        assert "null_odds" in row


def test_hugging_faces_layout_keeps_head_and_threshold(trained, tmp_path):
    out, _ = trained
    convert_checkpoint.run(
        convert_checkpoint.Options(bert_dir=str(out), output_dir=str(tmp_path / "hf"))
    )
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    pair = ("who was the king", "in those days the king david went up")
    answers = []
    for directory in (out, tmp_path / "hf"):
        with bert_toolkit.QuestionAnswerer(str(directory), max_seq_length=24) as answerer:
            answers.append((answerer.settings, answerer.answer(*pair)))
    assert answers[0][0] == answers[1][0]
    assert answers[0][1].text == answers[1][1].text
    assert answers[0][1].probability == pytest.approx(answers[1][1].probability, abs=1e-6)


def test_an_exported_model_scores_starts_and_ends(trained, tmp_path):
    import tensorflow as tf2

    from bert_toolkit.commands import export_model

    out, _ = trained
    export_model.run(
        export_model.Options(
            bert_dir=str(out), output_dir=str(tmp_path / "served"), with_text=False
        )
    )
    signature = tf2.saved_model.load(str(tmp_path / "served/1")).signatures["serving_default"]
    ids = np.array([[2, 10, 11, 3, 12, 13, 3, 0]], np.int32)
    found = signature(
        input_ids=tf2.constant(ids),
        input_mask=tf2.constant((ids > 0).astype(np.int32)),
        segment_ids=tf2.constant(np.array([[0, 0, 0, 0, 1, 1, 1, 0]], np.int32)),
    )
    assert found["start_logits"].shape == found["end_logits"].shape == (1, 8)
    assert float(found["start_logits"][0, 7]) == -1e4  # padding


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"do_train": True}, "--train_file is required with --do_train"),
        ({}, "nothing to do: pass --train_file, --eval_file or --predict_file"),
        ({"train_file": "-"}, "--train_file=-: only --predict_file reads standard input"),
        ({"predict_file": "x.json", "doc_stride": 500}, "--doc_stride=500 is longer than windows"),
        ({"train_file": "x.json", "num_runs": 2}, "pass --train_file and --eval_file"),
        ({"predict_file": "x.json", "doc_stride": 0}, "--doc_stride=0"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, flags, message):
    done = run_stage("run_squad", {"output_dir": tmp_path / "out", **flags})
    assert done.returncode == 1 or done.returncode == 2
    assert message in done.stderr
    assert not NOISE.search(done.stderr)


def test_models_of_other_tasks_are_refused(trained, tmp_path):
    out, _ = trained
    with pytest.raises(
        UserError, match="a model for question_answering; expected .*; use bert answer"
    ):
        bert_toolkit.TextClassifier(str(out))
    (tmp_path / "lines.txt").write_text("a text\n")
    done = run_stage("run_classifier", {"output_dir": out, "predict_file": tmp_path / "lines.txt"})
    assert done.returncode == 1
    assert "use bert answer, or another model" in done.stderr
