"""Masked tokens and next sentences are what transformers and a plain BERT say of them."""

import json
import shutil
import threading

import numpy as np
import pytest
from conftest import GOLDEN, run_stage
from plain_bert import PlainBert

import bert_toolkit
import tokenization
from bert_toolkit.commands import convert_checkpoint, fill_mask, score
from bert_toolkit.errors import UserError
from bert_toolkit.inference.fill_mask import BEAM

# Made by tests/golden/make_masked_lm.py on the golden model.
THEIRS = json.loads((GOLDEN / "masked_lm.json").read_text(encoding="utf-8"))
TO_FILL = list(THEIRS["filled"])
SCORED = [text if isinstance(text, str) else tuple(text) for text, _ in THEIRS["scores"]]
PAIRS = [tuple(pair) for pair, _ in THEIRS["next_sentence"]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The golden model as a directory, for all tests here; none writes to it."""
    directory = tmp_path_factory.mktemp("golden") / "model"
    shutil.copytree(GOLDEN / "model", directory)
    shutil.copy(GOLDEN / "vocab.txt", directory)
    return directory


@pytest.fixture(scope="module")
def filler(directory):
    with bert_toolkit.FillMask(str(directory)) as model:
        yield model


@pytest.fixture(scope="module")
def scorer(directory):
    with bert_toolkit.Scorer(str(directory)) as model:
        yield model


@pytest.fixture(scope="module")
def plain(directory):
    return PlainBert(directory)


@pytest.fixture(scope="module")
def tokenizer(directory):
    return tokenization.FullTokenizer(str(directory / "vocab.txt"), never_split=["[MASK]"])


def assert_candidates(found, expected):
    """Compares with (word, logarithm of its probability), in order."""
    assert [candidate.word for candidate in found] == [word for word, _ in expected]
    logs = np.log([candidate.probability for candidate in found])
    np.testing.assert_allclose(logs, [value for _, value in expected], atol=1e-5)


# --- Filling ---


@pytest.mark.platform
@pytest.mark.parametrize("batch_size", [1, 32])
def test_candidates_equal_those_of_transformers(filler, batch_size):
    found = filler.fill(TO_FILL, top_k=7, batch_size=batch_size)
    assert [len(masks) for masks in found] == [1, 2, 2]
    for masks, expected in zip(found, THEIRS["filled"].values()):
        for candidates, of_mask in zip(masks, expected):
            assert_candidates(candidates, of_mask)


def test_targets_equal_those_of_transformers(filler):
    [(text, [expected])] = THEIRS["targets"].items()
    words = [word for word, _ in expected]
    [[found]] = filler.fill([text], targets=[*reversed(words), words[0]])
    assert_candidates(found, expected)
    [[found]] = filler.fill([text], targets=words, top_k=2)
    assert_candidates(found, expected[:2])
    [[found]] = filler.fill([text], targets=["People"])  # cut as any text is
    assert found[0].word == "people"


def plain_words(plain, tokenizer, text, which, num_pieces, width):
    """Words of several pieces for one [MASK], found piece by piece, a sequence at a time."""
    tokens = tokenizer.tokenize(text)
    places = [place for place, token in enumerate(tokens) if token == "[MASK]"]
    before = tokens[: places[which]]
    after = tokens[places[which] + 1 :]

    def widened(tokens):  # the other masks have as many pieces
        return [one for t in tokens for one in [t] * (num_pieces if t == "[MASK]" else 1)]

    beam = [((), 0.0)]
    for number in range(num_pieces):
        longer = []
        for pieces, value in beam:
            masks = ["[MASK]"] * (num_pieces - number)
            sequence = ["[CLS]", *widened(before), *pieces, *masks, *widened(after), "[SEP]"]
            ids = tokenizer.convert_tokens_to_ids(sequence)
            log_probabilities = plain.masked_lm(ids)[1 + len(widened(before)) + number]
            for token, index in tokenizer.vocab.items():
                special = token.startswith("[") and token.endswith("]")
                if token.startswith("##") == bool(number) and not special:
                    longer.append(((*pieces, token), value + log_probabilities[index]))
        beam = sorted(longer, key=lambda one: -one[1])[:width]
    return beam


@pytest.mark.parametrize(("num_pieces", "top_k"), [(2, 3), (3, 12)])
def test_words_of_several_pieces_equal_a_plain_search(filler, plain, tokenizer, num_pieces, top_k):
    texts = TO_FILL[:2]
    found = filler.fill(texts, top_k=top_k, num_pieces=num_pieces, batch_size=4)
    for text, masks in zip(texts, found):
        for which, candidates in enumerate(masks):
            expected = plain_words(plain, tokenizer, text, which, num_pieces, max(top_k, BEAM))
            assert [one.pieces for one in candidates] == [one for one, _ in expected[:top_k]]
            np.testing.assert_allclose(
                np.log([one.probability for one in candidates]),
                [value for _, value in expected[:top_k]],
                atol=1e-5,
            )


def test_targets_of_several_pieces_have_the_probability_of_these(filler, plain, tokenizer):
    word, text = "woe", "the people were [MASK]"
    [first, second] = tokenizer.encode(word)
    start = tokenizer.convert_tokens_to_ids(["[CLS]", *tokenizer.tokenize("the people were")])
    mask, end = tokenizer.convert_tokens_to_ids(["[MASK]", "[SEP]"])
    place = len(start)
    expected = plain.masked_lm([*start, mask, mask, end])[place, first]
    expected += plain.masked_lm([*start, first, mask, end])[place + 1, second]
    [[found]] = filler.fill([text], num_pieces=2, targets=[word])
    assert_candidates(found, [(word, expected)])


def test_the_text_has_the_word_in_its_place(filler):
    [first, second] = filler.fill(["  Woe: [MASK], he said [MASK]."], targets=["##ing"])[0]
    assert first[0].text == "  Woe:ing, he said [MASK]."
    assert second[0].text == "  Woe: [MASK], he saiding."
    assert second[0].word == "##ing"
    [[found]] = filler.fill(["Woe [MASK]!"], targets=["house"])
    assert found[0].text == "Woe house!"
    assert filler.fill([]) == []


def test_a_text_that_is_cut_after_its_masks(directory, caplog):
    with bert_toolkit.FillMask(str(directory), max_seq_length=6) as model:
        [[found]] = model.fill(["the [MASK] and the house of the lord"], targets=["people"])
        [[same]] = model.fill(["the [MASK] and the"], targets=["people"])
    assert found[0].text == "the people and the house of the lord"
    assert found[0].probability == same[0].probability
    assert [record.getMessage() for record in caplog.records] == ["1 texts were cut to 6 tokens"]


def test_threads_share_a_model(filler, scorer):
    filled, scores = filler.fill(TO_FILL), scorer.score(SCORED)
    found = []

    def work():
        for _ in range(3):
            found.append((filler.fill(TO_FILL, batch_size=2), scorer.score(SCORED, 5)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for its_filled, its_scores in found:
        for ours, theirs in zip(filled, its_filled):
            assert [[one.word for one in mask] for mask in ours] == [
                [one.word for one in mask] for mask in theirs
            ]
        for ours, theirs in zip(scores, its_scores):
            np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, atol=1e-5)


# --- Scores ---


@pytest.mark.platform
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_equal_masking_each_token_in_transformers(scorer, batch_size):
    for found, (_, expected) in zip(scorer.score(SCORED, batch_size), THEIRS["scores"]):
        np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-5)
        assert found.pseudo_log_likelihood == pytest.approx(sum(expected), abs=1e-4)
        mean = sum(expected) / len(expected)
        assert found.pseudo_perplexity == pytest.approx(np.exp(-mean), rel=1e-5)


@pytest.mark.parametrize("rest", [False, True])
def test_scores_equal_a_plain_loop(scorer, plain, tokenizer, rest):
    texts = ["blessed is the man", "woe unto the gladsome that are wise in their own gladness"]
    for text, found in zip(texts, scorer.score(texts, 4, mask_rest_of_word=rest)):
        tokens = ["[CLS]", *tokenizer.tokenize(text), "[SEP]"]
        expected = []
        for place in range(1, len(tokens) - 1):
            masked = [*tokens[:place], "[MASK]", *tokens[place + 1 :]]
            for later in range(place + 1, len(tokens)):
                if not (rest and tokens[later].startswith("##")):
                    break
                masked[later] = "[MASK]"
            log_probabilities = plain.masked_lm(tokenizer.convert_tokens_to_ids(masked))
            expected.append(log_probabilities[place, tokenizer.vocab[tokens[place]]])
        assert list(found.tokens) == tokenizer.tokenize(text)
        np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-5)


def test_what_is_cut_and_what_is_empty(directory):
    with bert_toolkit.Scorer(str(directory), max_seq_length=6) as model:
        long, empty = model.score(["the people and the house of the lord", ""])
    assert long.tokens == ("the", "people", "and", "the")
    assert long.cut == 4
    assert empty.tokens == ()
    assert np.isnan(empty.pseudo_perplexity)
    with pytest.raises(TypeError, match="expected a list of texts"):
        model.score("one text")


@pytest.mark.platform
def test_next_sentences_equal_those_of_transformers(directory):
    with bert_toolkit.NextSentence(str(directory)) as model:
        found = model.predict(PAIRS)
    expected = [value for _, value in THEIRS["next_sentence"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("to", ["hugging_face", "google"])
def test_other_layouts_give_the_same(tmp_path, directory, filler, to):
    where = directory
    for form in ["hugging_face"] if to == "hugging_face" else ["hugging_face", "google"]:
        convert_checkpoint.run(
            convert_checkpoint.Options(
                bert_dir=str(where), output_dir=str(tmp_path / form), to=form
            )
        )
        where = tmp_path / form
    with bert_toolkit.FillMask(str(where)) as model:
        assert model.fill(TO_FILL) == filler.fill(TO_FILL)


# --- The command line ---


def test_fill_mask_at_the_command_line(directory):
    result = run_stage(
        "fill_mask", {"bert_dir": directory, "top_k": 2}, *(f"--text={text}" for text in TO_FILL)
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == TO_FILL  # commas in them or not
    assert [len(row["masks"]) for row in rows] == [1, 2, 2]
    word, log = THEIRS["filled"][TO_FILL[0]][0][0]
    best = rows[0]["masks"][0][0]
    assert best == {
        "word": word,
        "probability": pytest.approx(np.exp(log), rel=1e-4),
        "pieces": [word],
        "text": TO_FILL[0].replace("[MASK]", word),
    }


def test_score_at_the_command_line(directory):
    result = run_stage(
        "score",
        {"bert_dir": directory, "input_file": "-", "rank": "pseudo_perplexity"},
        "--per_token",
        input="\n".join([*SCORED[:3], "", SCORED[3]]) + "\n",
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    means = {number: np.mean(values) for number, (_, values) in zip([1, 2, 3, 5], THEIRS["scores"])}
    assert [row["line"] for row in rows] == [*sorted(means, key=means.get, reverse=True), 4]
    for row in rows[:-1]:
        assert row["pseudo_perplexity"] == pytest.approx(np.exp(-means[row["line"]]), rel=1e-4)
        assert len(row["log_probabilities"]) == row["tokens"]
    assert rows[-1]["pseudo_log_likelihood"] is None
    total = sum(sum(values) for _, values in THEIRS["scores"][:4])
    count = sum(len(values) for _, values in THEIRS["scores"][:4])
    assert "warning: standard input: 1 texts without tokens have no score" in result.stderr
    assert (
        f"5 texts, {count} tokens: pseudo-log-likelihood {total:.2f},"
        f" pseudo-perplexity {np.exp(-total / count):.2f}"
    ) in result.stderr


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_pairs_of_lines_and_of_objects(tmp_path, directory, ending):
    path, out = tmp_path / f"pairs.{ending}", tmp_path / "out.jsonl"
    as_line = {
        "tsv": "\t".join,
        "jsonl": lambda pair: json.dumps({"text": pair[0], "text_b": pair[1]}),
    }[ending]
    path.write_text("".join(f"{as_line(pair)}\n" for pair in PAIRS))
    options = score.Options(
        bert_dir=str(directory), input_file=str(path), output_file=str(out), next_sentence=True
    )
    assert score.run(options) == len(PAIRS)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["text"], row["text_b"]) for row in rows] == PAIRS
    for row, (_, expected) in zip(rows, THEIRS["next_sentence"]):
        assert row["probability"] == pytest.approx(expected, abs=1e-5)


def test_many_lines_keep_their_order(tmp_path, directory, monkeypatch):
    monkeypatch.setattr(fill_mask, "LINES_TOGETHER", 3)
    texts = [f"the {'very ' * (n * 5 % 7)}[MASK] number {n}" for n in range(8)]
    (tmp_path / "lines.txt").write_text("\n".join(texts) + "\n")
    out = tmp_path / "out.jsonl"
    flags = {"bert_dir": str(directory), "input_file": str(tmp_path / "lines.txt")}
    assert fill_mask.run(fill_mask.Options(**flags, output_file=str(out), top_k=1)) == 8
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == texts


# --- Errors ---


def filled(tmp_path, directory, lines, **flags):
    path = tmp_path / "lines.txt"
    path.write_text(lines)
    flags = {"input_file": str(path), "output_file": str(tmp_path / "out.jsonl"), **flags}
    return fill_mask.run(fill_mask.Options(bert_dir=str(directory), **flags))


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        ("a [MASK]\nnone\n", {}, r"lines.txt line 2: no \[MASK\] in it; expected one or more"),
        ("a [MASK]\n\n", {}, r"lines.txt line 2: no \[MASK\] in it"),
        ("", {}, "lines.txt: empty; expected lines of text"),
        (
            "the man and the [MASK] go\n",
            {"max_seq_length": 6},
            r"line 1: a \[MASK\] is cut off, as 8 tokens are more than max_seq_length 6",
        ),
        ("a [MASK]\n", {"targets": ["people", "violencer"]}, r"target 'violencer': \d pieces \("),
        ("a [MASK]\n", {"targets": ["\u2603"]}, "not in the vocabulary"),
    ],
)
def test_texts_that_cannot_be_filled(tmp_path, directory, lines, flags, message):
    with pytest.raises(UserError, match=message):
        filled(tmp_path, directory, lines, **flags)
    assert not (tmp_path / "out.jsonl").exists()


def scored(tmp_path, directory, name, lines):
    (tmp_path / name).write_text(lines)
    options = {"input_file": str(tmp_path / name), "next_sentence": True}
    return score.run(score.Options(bert_dir=str(directory), **options))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "a.txt",
            "a\tb\none\n",
            "a.txt line 2: 0 tabs, expected two texts with one between them, or \\|\\|\\|",
        ),
        ("a.txt", "a\tb\na\t \n", "a.txt line 2: one text of the pair is empty; expected two"),
        ("a.jsonl", '{"text": "", "text_b": "b"}\n', "line 1: one text of the pair is empty"),
        ("a.txt", "a\tb\tc\n", "a.txt line 1: 2 tabs, expected"),
        ("a.jsonl", '{"text": "a"}\n', "a.jsonl line 1: no 'text_b' or 'sentence2', only 'text'"),
        ("a.jsonl", '{"text": 1, "text_b": "b"}\n', "a.jsonl line 1: 1 is no text"),
        ("a.jsonl", "text\n", "a.jsonl line 1: not JSON"),
    ],
)
def test_lines_that_are_no_pairs(tmp_path, directory, name, lines, message):
    with pytest.raises(UserError, match=message):
        scored(tmp_path, directory, name, lines)


def test_flags_that_do_not_go_together():
    with pytest.raises(UserError, match=r"--text is required \(or --input_file\)"):
        fill_mask.Options(bert_dir="x")
    with pytest.raises(UserError, match="--text and --input_file: pass one of them"):
        fill_mask.Options(bert_dir="x", text=["a"], input_file="b")
    with pytest.raises(UserError, match="--next_sentence: goes without --per_token"):
        score.Options(bert_dir="x", text=["a"], next_sentence=True, per_token=True)
    with pytest.raises(UserError, match="--input_file=nothing: no such file"):
        fill_mask.run(fill_mask.Options(bert_dir="x", input_file="nothing"))


def test_models_without_the_head(tmp_path, directory):
    """A checkpoint of the encoder alone, as sentence-transformers' are; never random numbers."""
    from bert_toolkit.checkpoints import checkpoint_files

    weights = checkpoint_files.read(str(directory / "bert_model.ckpt"))
    encoder = tmp_path / "encoder"
    shutil.copytree(directory, encoder, ignore=shutil.ignore_patterns("bert_model*"))
    checkpoint_files.save(
        str(encoder / "bert_model.ckpt"),
        {name: value for name, value in weights.items() if not name.startswith("cls/")},
    )
    for made, head in (
        (bert_toolkit.FillMask, "masked-LM"),
        (bert_toolkit.Scorer, "masked-LM"),
        (bert_toolkit.NextSentence, "next-sentence"),
    ):
        with pytest.raises(UserError, match=rf"has no trained cls/.*the {head} head"):
            made(str(encoder))
    untrained = tmp_path / "untrained"
    shutil.copytree(encoder, untrained, ignore=shutil.ignore_patterns("bert_model*"))
    weights["cls/seq_relationship/output_bias"] = np.zeros(2, np.float32)
    checkpoint_files.save(str(untrained / "bert_model.ckpt"), weights)
    with pytest.raises(UserError, match="its next-sentence head was not trained"):
        bert_toolkit.NextSentence(str(untrained))
    config = json.loads((directory / "bert_config.json").read_text())
    untied = tmp_path / "untied"
    shutil.copytree(directory, untied)
    (untied / "bert_config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(UserError, match="tie_word_embeddings is false"):
        bert_toolkit.FillMask(str(untied))
