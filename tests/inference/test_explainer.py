"""Shares of words: complete, by the slopes of the logit, and what the logit loses without them."""

import io
import json
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import GOLDEN, run_stage

import bert_toolkit
from bert_toolkit.checkpoints import checkpoint_files, task_file
from bert_toolkit.commands import explain
from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import features
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem

TEXT = "The word was  with Göd, un-wanted"
PAIR = ("the earth was without form", "and darkness was upon the deep")
LABELS = ("bad", "fair", "good")


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory):
    """Returns a function that makes a classifier's directory of the golden model, with a head of random weights."""

    def make(problem):
        directory = tmp_path_factory.mktemp("classifier")
        weights = checkpoint_files.read(str(GOLDEN / "model/bert_model.ckpt"))
        random = np.random.default_rng(1)
        weights = {name: value for name, value in weights.items() if name.startswith("bert/")}
        weights["output_weights"] = random.normal(size=(problem.outputs, 32)).astype(np.float32)
        weights["output_bias"] = random.normal(size=problem.outputs).astype(np.float32)
        shutil.copy(GOLDEN / "model/bert_config.json", directory)
        shutil.copy(GOLDEN / "vocab.txt", directory)
        checkpoint_files.save(str(directory / "bert_model.ckpt"), weights)
        task_file.write(str(directory), problem)
        return directory

    return make


@pytest.fixture(scope="module")
def model(classifier_dir):
    return classifier_dir(Problem(SINGLE, LABELS))


@pytest.fixture(scope="module")
def explainer(model):
    return bert_toolkit.Explainer(str(model))


@pytest.mark.parametrize("text", [TEXT, PAIR])
@pytest.mark.parametrize("label", [None, *LABELS])
def test_shares_are_complete(explainer, text, label):
    [found] = explainer.explain([text], label=label, method="integrated_gradients")
    difference = found.logit - found.baseline_logit
    assert sum(word.integrated_gradients for word in found.words) == pytest.approx(
        difference, rel=0.01
    )
    assert found.error < 0.01
    assert all(word.occlusion is None for word in found.words)
    rough = explainer.explain([text], label=label, method="integrated_gradients", steps=1)[0]
    assert rough.error > found.error


def test_shares_are_the_slopes_on_the_way_from_the_masks(explainer):
    """By finite differences of the logit, moving one word at a time."""
    steps, label = 20, "good"
    [found] = explainer.explain([PAIR], label=label, steps=steps, align="spaces", batch_size=7)
    encoded, words = explainer._words(PAIR, "spaces")
    vocab = explainer._model.tokenizer.vocab
    special = (vocab["[CLS]"], vocab["[SEP]"])
    masked = [number if number in special else vocab["[MASK]"] for number in encoded.input_ids]
    assert len(masked) - masked.count(vocab["[MASK]"]) == 3
    fetch, its_features = explainer._model.fetch, [features(encoded)]
    batch = its_features + [features(encoded._replace(input_ids=masked))]
    [rows] = fetch(["word_embeddings"], batch)
    end, start = rows.reshape(2, len(masked), -1)

    def logit(states):
        return fetch(["logits"], its_features, word_embeddings=states)[0][0, LABELS.index(label)]

    assert logit(end) == pytest.approx(found.logit, abs=1e-5)
    assert logit(start) == pytest.approx(found.baseline_logit, abs=1e-5)
    for word, share in zip(words, found.words):
        way = np.zeros_like(end)
        way[word.pieces] = (end - start)[word.pieces]
        slopes = []
        for step in range(steps):
            here = start + (step + 0.5) / steps * (end - start)
            slopes.append((logit(here + 0.01 * way) - logit(here - 0.01 * way)) / 0.02)
        assert share.integrated_gradients == pytest.approx(np.mean(slopes), abs=2e-3)


def test_occlusion_is_what_the_logit_loses(explainer):
    [found] = explainer.explain(["the word was with god"], method="occlusion")
    assert found.baseline_logit is None
    shorter = (
        "word was with god;the was with god;the word with god;the word was god;the word was with"
    )
    others = explainer.explain(shorter.split(";"), label=found.label, method="occlusion")
    for word, other in zip(found.words, others):
        assert word.occlusion == pytest.approx(found.logit - other.logit, abs=1e-5)
    assert max(abs(word.occlusion) for word in found.words) > 0.01


@pytest.mark.parametrize("align", ["words", "spaces"])
def test_words_are_those_of_the_text(explainer, align):
    for text in (TEXT, PAIR, (PAIR[0], "")):
        [found] = explainer.explain([text], method="occlusion", align=align)
        texts = [text] if isinstance(text, str) else text
        for word in found.words:
            assert word.text == texts[word.part][word.start : word.end]
        if align == "spaces":
            assert [word.text for word in found.words] == " ".join(texts).split()
    if align == "words":
        names = [word.text for word in explainer.explain([TEXT], align=align)[0].words]
        assert names == ["The", "word", "was", "with", "Göd", ",", "un", "-", "wanted"]


def test_the_prediction_is_the_classifiers(model, explainer):
    texts = [TEXT, PAIR, ""]
    expected = bert_toolkit.TextClassifier(str(model)).predict(texts)
    found = explainer.explain(texts)
    for one, prediction in zip(found, expected):
        assert one.predicted == prediction.label == one.label
        assert one.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
    assert explainer.predict(texts)[0].label == expected[0].label
    assert found[2].words == []
    assert found[2].error < 1e-3


def test_words_that_are_cut_off_have_no_share(model):
    short = bert_toolkit.Explainer(str(model), max_seq_length=8)
    [found] = short.explain([PAIR], align="spaces")
    assert [word.text for word in found.words] == ["the", "earth", "was", "and", "dar"]
    assert found.cut > 0
    assert found.error < 0.01


@pytest.mark.slow
def test_a_number_and_several_labels(classifier_dir):
    [found] = bert_toolkit.Explainer(str(classifier_dir(Problem(REGRESSION)))).explain([TEXT])
    assert found.label == ""
    assert float(found.predicted) == pytest.approx(found.logit)
    assert found.error < 0.01
    several = bert_toolkit.Explainer(str(classifier_dir(Problem(MULTI, LABELS))))
    [found] = several.explain([TEXT], label="fair")
    chance = found.probabilities["fair"]
    assert found.logit == pytest.approx(np.log(chance / (1 - chance)), abs=1e-4)


def test_what_cannot_be_explained(explainer, model_dir):
    with pytest.raises(UserError, match="^label=great: expected one of bad, fair, good; leave it"):
        explainer.explain([TEXT], label="great")
    with pytest.raises(TypeError, match="expected a list of texts"):
        explainer.explain(TEXT)
    with pytest.raises(UserError, match="expected a trained classifier"):
        bert_toolkit.Explainer(str(model_dir))


# --- The command ---


@pytest.mark.slow
def test_the_command_prints_a_table(model):
    result = run_stage(
        "explain",
        {"bert_dir": model, "input_file": "-"},
        input="the <b>word</b> ||| of god\nblessed\n",
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.strip().split("\n\n")
    lines = first.split("\n")
    assert lines[:2] == ["the <b>word</b>", "of god"]
    assert lines[3].split() == ["gradients", "left", "out", "word"]
    rows = [line.split() for line in lines[4:-1]]
    assert [row[2] for row in rows] == "the < b > word < / b > of god".split()
    shares = [float(row[0]) for row in rows]
    assert float(lines[-1].split()[0]) == pytest.approx(sum(shares), abs=0.0005 * len(rows) + 1e-3)
    assert "% off: with [MASK] for every word, the logit is" in lines[-1]
    assert second.startswith("blessed\n")
    assert "\x1b" not in result.stdout


def options(model, **flags):
    return explain.Options(**{"bert_dir": str(model), "text": [TEXT], **flags})


def test_colours_are_for_terminals_and_not_where_they_are_not_wanted(model, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    shown = []
    for no_colour in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_colour)
        monkeypatch.setattr(sys, "stdout", Screen())
        explain.run(options(model))
        shown.append(sys.stdout.getvalue())
    assert "\x1b[38;5;16;48;5;" in shown[0]
    assert re.sub(r"\x1b\[[\d;]*m", "", shown[0]) == shown[1]


def test_the_command_writes_json_lines_and_a_page(model, tmp_path, caplog):
    (tmp_path / "lines.txt").write_text(f"<i>{TEXT}\n{' ||| '.join(PAIR)}\n")
    flags = {"text": None, "input_file": str(tmp_path / "lines.txt"), "label": "fair"}
    assert explain.run(options(model, **flags, output_file=str(tmp_path / "a.jsonl"))) == 2
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    expected = bert_toolkit.Explainer(str(model)).explain([f"<i>{TEXT}", PAIR], label="fair")
    for row, one in zip(rows, expected):
        assert row["label"] == "fair"
        assert row["logit"] - row["baseline_logit"] == pytest.approx(
            sum(word["integrated_gradients"] for word in row["words"]), rel=0.01
        )
        assert [word["occlusion"] for word in row["words"]] == pytest.approx(
            [word.occlusion for word in one.words], abs=1e-5
        )
    assert (rows[1]["text"], rows[1]["text_b"]) == PAIR
    explain.run(
        options(model, **flags, output_file=str(tmp_path / "a.html"), steps=1, max_seq_length=8)
    )
    page = (tmp_path / "a.html").read_text()
    assert "&lt;" in page
    assert "<i>" not in page
    assert "//" not in page  # nothing is loaded
    assert page.count("<section>") == 2
    assert "texts: the shares are more than 1 % off in all; pass more than --steps=1" in caplog.text
    assert "2 of 2 texts were cut to --max_seq_length=8 tokens; words beyond" in caplog.text


def test_a_pair_may_be_written_in_many_ways(model, tmp_path):
    (tmp_path / "a.txt").write_text(" ||| ".join(PAIR) + "\n")
    row = {"text": PAIR[0], "text_b": PAIR[1]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    ways = [
        {"text": [PAIR[0]], "text_b": PAIR[1]},
        {"text": [" ||| ".join(PAIR)]},
        {"text": None, "input_file": str(tmp_path / "a.txt")},
        {"text": None, "input_file": str(tmp_path / "a.jsonl")},
    ]
    found = []
    for number, way in enumerate(ways):
        out = tmp_path / f"out{number}.jsonl"
        assert explain.run(options(model, **way, method="occlusion", output_file=str(out))) == 1
        found.append(json.loads(out.read_text()))
    assert (found[0]["text"], found[0]["text_b"]) == PAIR
    assert found == [found[0]] * 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"bert_dir": ""}, "--bert_dir is required"),
        ({"text": None}, r"--text is required \(or --input_file\)"),
        ({"input_file": "a.txt"}, "--text and --input_file: pass one of them"),
        ({"text": None, "input_file": "a.txt", "text_b": "b"}, "--text_b goes with one --text"),
        ({"text": ["a", "b"], "text_b": "b"}, "--text_b goes with one --text"),
        ({"output_file": "a.txt"}, "--output_file=a.txt: expected a name that ends in .html or"),
        ({"label": "great"}, "--label=great: expected one of bad, fair, good"),
        ({"text": None, "input_file": "nowhere.txt"}, "--input_file=nowhere.txt: no such file"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit(model, flags, message):
    with pytest.raises(UserError, match=message):
        explain.run(options(model, **flags))


def test_an_empty_file_leaves_no_page(model, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    flags = {"text": None, "input_file": str(tmp_path / "empty.txt")}
    with pytest.raises(UserError, match="empty.txt: empty; expected lines of text"):
        explain.run(options(model, **flags, output_file=str(tmp_path / "a.html")))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
