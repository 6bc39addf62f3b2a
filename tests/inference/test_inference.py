"""Models from Python give what the command line gives."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT

import bert_toolkit
import extract_features
import run_classifier
from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import InferenceSession, arguments_named

TEXTS = [
    "the people rejoice with gladness",
    "woe",
    "a cry of sorrow and wrath in the house of violence",
    ("a song of joy", "and peace"),
]


def as_line(text):
    return text if isinstance(text, str) else " ||| ".join(text)


def test_vectors_are_those_of_the_command_line(tmp_path, model_dir):
    (tmp_path / "lines.txt").write_text("\n".join(map(as_line, TEXTS)) + "\n")
    flags = {"pooling": "mean_max", "normalize": True}
    extract_features.run(
        extract_features.Options(
            input_file=str(tmp_path / "lines.txt"),
            output_file=str(tmp_path / "out.npy"),
            bert_dir=str(model_dir),
            layers="0,-1",
            **flags,
        )
    )
    encoder = bert_toolkit.Encoder(str(model_dir), layers=[0, -1], **flags)
    expected = np.load(tmp_path / "out.npy")
    for size in (1, 3, 32):
        np.testing.assert_allclose(encoder.encode(TEXTS, size), expected, atol=1e-6)
    assert encoder.encode([]).shape == (0, 128)
    with pytest.raises(TypeError, match="expected a list of texts"):
        encoder.encode("one text")
    encoder.close()


def test_short_texts_share_a_batch_unless_its_size_is_given(model_dir, monkeypatch):
    sizes = []

    def counted(session, rows):
        sizes.append(len(rows))
        return run(session, rows)

    run = InferenceSession.run_batch
    monkeypatch.setattr(InferenceSession, "run_batch", counted)
    encoder = bert_toolkit.Encoder(str(model_dir), max_seq_length=128)
    texts = ["the word"] * 50 + ["god " * 500] * 40
    expected = encoder.encode(texts)
    assert sizes == [50, 32, 8]
    sizes.clear()
    np.testing.assert_allclose(encoder.encode(texts, 7), expected, atol=1e-6)
    assert sizes == [7] * 12 + [6]


def test_threads_share_an_encoder(model_dir):
    encoder = bert_toolkit.Encoder(str(model_dir))
    texts = [f"the word was {'with god ' * n}" for n in range(1, 12)]
    expected = encoder.encode(texts)
    found = {}

    def work(number):
        for _ in range(5):
            found[number] = encoder.encode(texts[number:], 3)

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, values in found.items():
        np.testing.assert_allclose(values, expected[number:], atol=1e-6)


@pytest.mark.slow
def test_predictions_are_those_of_the_command_line(tmp_path, reviews, model_dir):
    out = tmp_path / "out"
    run_classifier.run(
        run_classifier.Options(
            train_file=str(reviews / "train.tsv"),
            eval_file=str(reviews / "dev.tsv"),
            predict_file=str(reviews / "test.tsv"),
            bert_dir=str(model_dir),
            output_dir=str(out),
            learning_rate=1e-3,
            evaluate_every="epoch",
            calibrate=True,
            reject_below="20%",
        )
    )
    texts = [line.split("\t")[1] for line in (reviews / "test.tsv").read_text().splitlines()[1:]]
    found = bert_toolkit.TextClassifier(str(out)).predict(texts)
    rows = [line.split("\t") for line in (out / "test_predictions.tsv").read_text().splitlines()]
    assert [prediction.label for prediction in found] == [row[1] for row in rows[1:]]
    for prediction, row in zip(found, rows[1:]):
        assert list(prediction.probabilities) == ["0", "1"]
        assert list(prediction.probabilities.values()) == pytest.approx(
            [float(cell) for cell in row[2:4]], abs=1e-5
        )


def test_models_that_cannot_be_used(tmp_path, model_dir):
    with pytest.raises(UserError, match="no such directory"):
        bert_toolkit.Encoder(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="expected a trained classifier"):
        bert_toolkit.TextClassifier(str(model_dir))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        bert_toolkit.Nothing  # noqa: B018


def test_the_package_alone_imports_no_tensorflow():
    code = (
        "import bert_toolkit, sys; sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_errors_name_the_flag_of_the_command_around():
    """A class names its argument, and a command that loads it the flag that it has for that."""
    outer = arguments_named(model_dir="--model_dir", max_seq_length="--max_seq_length")
    with pytest.raises(UserError, match=r"^--model_dir=x: a; pass --max_seq_length=8$"):  # noqa: SIM117
        with outer, arguments_named(bert_dir="model_dir"):
            raise UserError("--bert_dir=x: a; pass --max_seq_length=8")
