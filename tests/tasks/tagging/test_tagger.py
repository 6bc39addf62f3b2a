"""Taggers from training to prediction, on the command line and from Python."""

import json
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from conftest import GOLDEN, ROOT, run_stage
from stage_runs import NOISE, metrics_of

import bert_toolkit
import run_classifier
import run_token_classifier
from bert_toolkit.commands import convert_checkpoint, export_model
from bert_toolkit.errors import UserError
from bert_toolkit.tasks.tagging import schemes

SAMPLE = ROOT / "sample_data" / "tags"
TEXTS = [
    "Mary Stone left Norby, before breakfast.",
    "",
    "  the train from Seaton to Lakeford is\u00a0late",
]


def options(out, model_dir, **flags):
    return run_token_classifier.Options(
        **{
            "output_dir": str(out),
            "bert_dir": str(model_dir),
            "max_seq_length": 32,
            "train_batch_size": 8,
            "num_train_epochs": 8,
            "learning_rate": 2e-3,
            **flags,
        }
    )


def predictions(path):
    """Returns the lines of a file in columns: those before the prediction, and predictions."""
    rows = [line.rpartition("\t") for line in path.read_text().splitlines()]
    return [row[0] for row in rows], [row[2] for row in rows]


@pytest.fixture(scope="module", params=["plain", "crf"])
def trained(request, tmp_path_factory):
    """A tagger of the sample sentences: its directory, and its metrics."""
    directory = tmp_path_factory.mktemp(request.param)
    model = directory / "golden"
    shutil.copytree(GOLDEN / "model", model)
    shutil.copy(GOLDEN / "vocab.txt", model)
    files = {f"{name}_file": str(SAMPLE / f"{file}.conll") for name, file in
             (("train", "train"), ("eval", "dev"), ("predict", "test"))}  # fmt: skip
    flags = {**files, "crf": request.param == "crf", "evaluate_every": "40"}
    found = run_token_classifier.run(options(directory / "out", model, **flags))
    return directory / "out", found


@pytest.mark.slow
def test_a_tagger_is_trained_evaluated_and_used(trained, tmp_path):
    out, found = trained
    assert found["eval_f1"] > 0.2
    names = {"precision", "recall", "f1", "accuracy", "loss", "f1_macro", "f1_of_PER", "f1_of_LOC"}
    assert {f"eval_{name}" for name in [*names, "f1_strict"]} <= found.keys()
    assert metrics_of(out)["eval_f1"] == pytest.approx(found["eval_f1"])
    task = json.loads((out / "task.json").read_text())
    assert task["problem_type"] == "token_classification"
    assert task["labels"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert task["settings"]["scheme"] == "iob2"
    assert (out / "labels.txt").read_text().split() == task["labels"]
    assert "micro" in (out / "eval_report.txt").read_text()
    before, tags = predictions(out / "test_predictions.conll")
    assert before == (SAMPLE / "test.conll").read_text().splitlines()
    assert set(tags) - {""} <= set(task["labels"])
    # Without the training file, from the directory alone.
    again = run_token_classifier.run(
        run_token_classifier.Options(
            output_dir=str(out), eval_file=str(SAMPLE / "dev.conll"), max_seq_length=32
        )
    )
    assert again == pytest.approx(found)
    errors = (out / "eval_errors.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in errors[1:]} <= {"missed", "invented"}


@pytest.mark.slow
def test_predictions_have_the_format_of_their_file(trained, tmp_path):
    out, _ = trained
    _, expected = predictions(out / "test_predictions.conll")
    sentences = [block.split("\n") for block in (SAMPLE / "test.conll").read_text().split("\n\n")]
    words = [[line.split("\t")[0] for line in rows if line] for rows in sentences]

    def predict(name, text, **more):
        (tmp_path / name).write_text(text)
        directory = tmp_path / f"{name}.out"
        run_token_classifier.run(
            options(
                directory,
                out / "best",
                predict_file=str(tmp_path / name),
                predict_batch_size=3,
                batch_tokens=0,
                **more,
            )
        )
        [path] = directory.glob("test_predictions.*")
        return path.read_text()

    numbered = ["".join(f"1 {word}\n" for word in one) for one in words]
    columns = predict("a.conll", "-DOCSTART-\n\n" + "\n".join(numbered), word_column=2)
    assert columns.startswith("-DOCSTART-\n\n1 ")
    assert [line.split(" ")[-1] for line in columns.splitlines()[2:]] == expected
    rows = [{"id": number, "tokens": one} for number, one in enumerate(words)]
    lines = predict("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)).splitlines()
    for row, line in zip(rows, lines):
        found = json.loads(line)
        assert {**row, "predicted_tags": found["predicted_tags"]} == found
    assert [tag for line in lines for tag in json.loads(line)["predicted_tags"]] == [
        tag for tag in expected if tag
    ]


@pytest.mark.slow
def test_json_lines_in_a_pipeline(trained, tmp_path):
    out, _ = trained
    flags = {
        "output_dir": out,
        "max_seq_length": 32,
        "predict_file": "-",
        "predict_format": "jsonl",
    }
    row = {"tokens": ["Mary", "left", "Norby"]}
    text = f"{json.dumps(row)}\n"
    result = run_stage("run_token_classifier", flags, input=text, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["tokens"] == row["tokens"]
    assert len(found["predicted_tags"]) == 3


@pytest.mark.slow
def test_entities_in_a_pipeline_are_those_from_python(trained, tmp_path):
    out, _ = trained
    text = "".join(f"{text}\n" for text in TEXTS)
    flags = {"output_dir": out, "max_seq_length": 32, "predict_file": "-"}
    result = run_stage("run_token_classifier", flags, input=text, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not NOISE.search(result.stderr)
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in printed] == TEXTS
    with bert_toolkit.TokenClassifier(str(out), max_seq_length=32) as tagger:
        for size in (1, 32):
            found = tagger.tag(TEXTS, size)
            for row, entities in zip(printed, found):
                assert [{**one._asdict(), "score": pytest.approx(one.score, abs=1e-4)} for one in entities] == row["entities"]  # fmt: skip
        assert any(found)
        for entity in found[0]:
            assert TEXTS[0][entity.start : entity.end] == entity.text
            assert 0 < entity.score <= 1
        words = "Mary Stone left Norby , before breakfast .".split()
        [of_words] = tagger.tag([words])
        assert [(one.text, one.type) for one in of_words] == [
            (one.text, one.type) for one in found[0]
        ]
        assert [words[one.start : one.end] for one in of_words] == [
            one.text.split() for one in of_words
        ]
        [tags] = tagger.tags([words])
        assert [kind for kind, _, _ in schemes.entities(tags)] == [one.type for one in of_words]
        assert tagger.tag([]) == []
        with pytest.raises(TypeError, match="expected a list of texts"):
            tagger.tag("one text")


@pytest.mark.slow
def test_threads_share_a_tagger_and_long_texts_have_windows(trained):
    out, _ = trained
    tagger = bert_toolkit.TokenClassifier(str(out), max_seq_length=16)
    texts = [f"{TEXTS[0]} " * n for n in range(1, 9)]
    expected = tagger.tag(texts)
    assert expected[-1][-1].end > len(texts[-1]) * 3 // 4
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: tagger.tag(texts[n:], 3)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, entities in found.items():
        for one, other in zip(entities, expected[number:]):
            assert [entity[:4] for entity in one] == [entity[:4] for entity in other]
    tagger.close()


@pytest.mark.slow
@pytest.mark.platform
def test_conversion_and_export(trained, tmp_path, caplog):
    out, _ = trained
    is_crf = json.loads((out / "task.json").read_text())["settings"]["crf"]
    best = out / "best"
    convert_checkpoint.run(
        convert_checkpoint.Options(bert_dir=str(best), output_dir=str(tmp_path / "theirs"))
    )
    config = json.loads((tmp_path / "theirs/config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"]["1"] == "B-LOC"
    assert ("crf/transitions are left out" in caplog.text) == is_crf
    convert_checkpoint.run(
        convert_checkpoint.Options(
            bert_dir=str(best), to="google", output_dir=str(tmp_path / "ours")
        )
    )
    words = [["Mary", "Stone", "left", "Norby"], ["Seaton"]]
    taggers = [bert_toolkit.TokenClassifier(str(path)) for path in (out, tmp_path / "ours", tmp_path / "theirs")]  # fmt: skip
    own, ours, theirs = (tagger._outputs(words, 2) for tagger in taggers)
    for one, other, third in zip(own, ours, theirs):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, third, atol=1e-6)
    assert taggers[0].tags(words) == taggers[1].tags(words)
    for tagger in taggers:
        tagger.close()
    directory = export_model.run(
        export_model.Options(bert_dir=str(out), output_dir=str(tmp_path / "served"))
    )
    signature = tf.saved_model.load(directory).signatures["serving_default"]
    [part] = taggers[0]._encoder.encode(words[0])
    ids = tf.constant([part.encoded.input_ids], tf.int32)
    served = signature(input_ids=ids, input_mask=tf.ones_like(ids), segment_ids=tf.zeros_like(ids))
    np.testing.assert_allclose(served["logits"][0].numpy()[part.places], own[0], atol=1e-5)
    assert served["label_ids"].shape == ids.shape
    assert ("transitions" in served) == is_crf
    with pytest.raises(UserError, match="--with_text: a tagger's answers are of token ids"):
        export_model.run(
            export_model.Options(bert_dir=str(out), output_dir=str(tmp_path / "x"), with_text=True)
        )


@pytest.mark.slow
def test_models_of_other_tasks_are_refused(trained, tmp_path, model_dir):
    out, _ = trained
    (tmp_path / "lines.txt").write_text("a\n")
    flags = {"predict_file": str(tmp_path / "lines.txt"), "output_dir": str(tmp_path / "x")}
    with pytest.raises(UserError, match="a model for token_classification; .* use bert tag"):
        run_classifier.run(run_classifier.Options(bert_dir=str(out), **flags))
    (model_dir / "task.json").write_text('{"problem_type": "single_label", "labels": ["a", "b"]}')
    with pytest.raises(UserError, match="a model for single_label; .* use bert classify"):
        run_token_classifier.run(run_token_classifier.Options(bert_dir=str(model_dir), **flags))
    with pytest.raises(UserError, match="a model for single_label; .* use bert classify"):
        bert_toolkit.TokenClassifier(str(model_dir))
    with pytest.raises(UserError, match="holds a model for the labels"):
        run_token_classifier.run(
            options(out, model_dir, train_file=str(SAMPLE / "train.conll"), scheme="bioes")
        )


@pytest.mark.slow
@pytest.mark.parametrize("crf", [False, True])
def test_a_run_goes_on_where_it_stopped(tmp_path, model_dir, crf):
    """In two parts, and in windows, as in one; gradients in parts too."""
    flags = {
        "train_file": str(SAMPLE / "test.conll"),
        "eval_file": str(SAMPLE / "dev.conll"),
        "crf": crf,
        "max_seq_length": 12,
        "save_checkpoints_steps": 8,
        "keep_checkpoint_max": 0,
    }
    whole = run_token_classifier.run(
        options(tmp_path / "a", model_dir, num_train_epochs=1, **flags)
    )
    # As if it had been interrupted after step 8.
    state = 'model_checkpoint_path: "model.ckpt-8"\nall_model_checkpoint_paths: "model.ckpt-8"\n'
    (tmp_path / "a" / "checkpoint").write_text(state)
    again = run_token_classifier.run(
        options(tmp_path / "a", model_dir, num_train_epochs=1, **flags)
    )
    assert again["global_step"] == whole["global_step"] > 8
    parts = {"gradient_accumulation_steps": 2, **flags}
    in_parts = run_token_classifier.run(
        options(tmp_path / "c", model_dir, num_train_epochs=1, **parts)
    )
    assert again["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-3)
    assert in_parts["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-3)


@pytest.mark.slow
def test_several_seeds_and_a_file_of_numbers(tmp_path, model_dir):
    rows = [{"tokens": ["In", "Ur"], "ner_tags": [0, 1]}, {"tokens": ["Abram"], "ner_tags": [2]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
    (tmp_path / "b.txt").write_text("In Ur\n")
    run_token_classifier.run(
        options(
            tmp_path / "out",
            model_dir,
            train_file=str(tmp_path / "a.jsonl"),
            eval_file=str(tmp_path / "a.jsonl"),
            predict_file=str(tmp_path / "b.txt"),
            labels=["O", "B-LOC", "B-PER"],
            num_runs=2,
            num_train_epochs=6,
        )
    )
    assert "f1" in (tmp_path / "out/runs.tsv").read_text()
    [line] = (tmp_path / "out/test_predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["entities"][0]["type"] == "LOC"


@pytest.mark.platform
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, model_dir):
    (tmp_path / "a.conll").write_text("In\tO\nUr\tLOC\n")
    flags = {"train_file": "a.conll", "bert_dir": model_dir, "output_dir": "out"}
    result = run_stage("run_token_classifier", flags, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "error: a.conll line 2: tag 'LOC' has no prefix; expected O, or B- or I- and a type, B-PER"
        " say\n"
    )
    assert list((tmp_path / "out").iterdir()) == []
