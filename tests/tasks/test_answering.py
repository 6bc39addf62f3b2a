"""Question answering: data, windows, spans, scores; official definitions restated plainly as oracles."""

import collections
import json
import random
import re
import string

import numpy as np
import pytest
from conftest import GOLDEN

from bert_toolkit.errors import UserError
from bert_toolkit.tasks.answering import answer_scores, question_data, spans
from bert_toolkit.tasks.answering.question_data import Answer, Question
from bert_toolkit.tasks.bad_rows import BadRows
from tokenization import FullTokenizer

# --- Scores ---

WORDS = "the a an The the, cat cat's dog. DOG U.S. 1895 1,895 café — naïve - ! 北京 \u00a0 \t new york".split(
    " "
)


def squad_normalize(s):
    def white_space_fix(text):
        return " ".join(text.split())

    without = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return white_space_fix(re.sub(r"\b(a|an|the)\b", " ", without))


def squad_f1(prediction, truth, version):
    predicted, true = squad_normalize(prediction).split(), squad_normalize(truth).split()
    if version == 2 and (not predicted or not true):
        return float(predicted == true)
    common = collections.Counter(predicted) & collections.Counter(true)
    same = sum(common.values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(true)
    return 2 * precision * recall / (precision + recall)


def random_pairs(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        truth = [rng.choice(WORDS) for _ in range(rng.randint(0, 6))]
        prediction = list(truth)
        for _ in range(rng.randint(0, 3)):
            prediction.insert(rng.randint(0, len(prediction)), rng.choice(WORDS))
        rng.shuffle(prediction)
        yield " ".join(prediction[rng.randint(0, 2) :]), " ".join(truth)


def test_scores_of_2000_pairs_are_those_of_the_official_evaluations():
    for prediction, truth in random_pairs(2000, 1):
        exact, f1 = answer_scores.by_words(prediction, truth)
        assert exact == float(squad_normalize(prediction) == squad_normalize(truth))
        assert f1 == squad_f1(prediction, truth, 2)
        if squad_normalize(truth):  # version 1.1 has no answers without a word
            assert f1 == squad_f1(prediction, truth, 1)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The U.S.", ["us", "America"], (1.0, 1.0)),
        ("a big dog", ["the dog", "big cat here"], (0.0, 2 / 3)),
        ("", [], (1.0, 1.0)),
        ("dog", [], (0.0, 0.0)),
        ("", ["dog"], (0.0, 0.0)),
        ("", ["the", "!"], (1.0, 1.0)),  # such answers do not count
    ],
)
def test_the_best_of_several_true_answers_counts(prediction, answers, expected):
    found = answer_scores.best_of(answer_scores.by_words, prediction, answers)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ("北京", "北京", (1.0, 1.0)),
        ("北京。", "《北京》", (1.0, 1.0)),
        ("中国北京", "北京市", (0.0, 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))),
        ("在2008年", "2008年", (0.0, 2 * (2 / 3) * 1 / (2 / 3 + 1))),  # a number is one unit
        ("3.5%", "35%", (0.0, 2 * (1 / 2) * (1 / 2) / (1 / 2 + 1 / 2))),  # points count
        ("3.5。", "3.5", (1.0, 1.0)),
        ("京北", "北京", (0.0, 0.5)),  # runs, not bags
        ("", "北", (0.0, 0.0)),
    ],
)
def test_characters_are_compared_as_cmrc_does(prediction, truth, expected):
    assert answer_scores.by_characters(prediction, truth) == pytest.approx(expected)


def official_threshold(predictions, scores, odds, has_answer):
    """find_best_thresh of the evaluation of SQuAD 2.0, restated."""
    current = best = sum(not there for there in has_answer)
    threshold = 0.0
    for number in sorted(range(len(odds)), key=lambda n: odds[n]):
        nothing = -1 if predictions[number] else 0
        current += scores[number] if has_answer[number] else nothing
        if current > best:
            best, threshold = current, odds[number]
    return 100.0 * best / len(scores), threshold


def test_the_best_threshold_is_that_of_the_official_evaluation():
    rng = np.random.default_rng(1)
    for count in (1, 2, 10, 200):
        for _ in range(20):
            has_answer, answered = rng.random((2, count)) < 0.6
            scores = np.where(has_answer, rng.random(count).round(1), ~answered)
            odds = rng.normal(size=count).round(3)
            found, threshold = answer_scores.best_threshold(scores, odds, has_answer, answered)
            expected = official_threshold(answered, scores, odds, has_answer)
            assert found == pytest.approx(expected[0])
            assert (0.0 if threshold is None else threshold) == expected[1]


def test_the_summary_divides_by_whether_there_is_an_answer():
    exact, f1 = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.5, 1.0, 0.0])
    has = np.array([True, True, False, False])
    found = answer_scores.summary(exact, f1, has, with_negative=True)
    assert found == {
        "exact": 50.0, "f1": 62.5, "total": 4, "HasAns_exact": 50.0, "HasAns_f1": 75.0,
        "HasAns_total": 2, "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2,
    }  # fmt: skip


# --- Data ---

CONTEXT = "The dog ran in the garden."
GOOD = {"id": "1", "question": "Who ran?", "answers": [{"text": "The dog", "answer_start": 0}]}


def squad(*questions, context=CONTEXT):
    return {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}],
    }


def read(path, *, answered=True, with_negative=False, skip=False, directory=None):
    bad = BadRows(skip)
    found = question_data.read(str(path), question_data.Layout(answered, with_negative), bad)
    bad.finish(str(directory or path.parent))
    return found


def test_layouts_give_the_same_questions(tmp_path):
    row = {"id": "1", "question": "Who ran?", "context": CONTEXT}
    cmrc = [{"context_id": "c", "context_text": CONTEXT, "title": "t", "qas": [
        {"query_id": "1", "query_text": "Who ran?", "answers": ["The dog"]}]}]  # fmt: skip
    made = {
        "squad.json": json.dumps(squad(GOOD)),
        "bom.json": "\ufeff" + json.dumps(squad(GOOD)),
        "cmrc.json": json.dumps(cmrc),
        "flat.jsonl": json.dumps({**row, "answers": {"text": ["The dog"], "answer_start": [0]}})
        + "\n",
        "rows.jsonl": "\n" + json.dumps({**row, "answers": GOOD["answers"]}) + "\n",
    }
    for name, text in made.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        [question] = read(tmp_path / name)
        assert question[:4] == ("1", "Who ran?", CONTEXT, (Answer("The dog", 0),)), name


def test_version_2_takes_questions_without_an_answer(tmp_path):
    path = tmp_path / "v2.json"
    plausible = {"text": "garden", "answer_start": 19}
    none = {
        "id": "2",
        "question": "Who slept?",
        "answers": [],
        "is_impossible": True,
        "plausible_answers": [plausible],
    }
    path.write_text(json.dumps(squad(GOOD, none)))
    assert [question.answers for question in read(path, with_negative=True)] == [
        (Answer("The dog", 0),),
        (),
    ]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("{", {}, r"a.json: not JSON \(.*\); expected SQuAD's layout"),
        ('{"a": 1}\n{"b": 2}', {}, r"not JSON .*; name it .jsonl if it has an object a line"),
        ([], {}, "a.json as a whole: no 'data' in it, only \\[\\]"),
        ({"rows": []}, {}, "a.json as a whole: no 'data' in it, only 'rows'"),
        ({"data": []}, {}, "a.json: no question in it"),
        ({"data": [{"title": "x"}]}, {}, r"a.json data\[0\]: no 'paragraphs' in it, only 'title'"),
        ({"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}, {}, r"data\[0\].paragraphs\[0\].context: 3; expected a text"),
        (squad(), {}, r"data\[0\].paragraphs\[0\]: a paragraph without questions"),
        (squad({**GOOD, "id": None}), {}, r"data\[0\].paragraphs\[0\].qas\[0\]: a question without an id"),
        (squad("Who?"), {}, r"qas\[0\]: 'Who\?'; expected an object"),
        (squad(GOOD, GOOD), {}, r"qas\[1\].id: id '1' is that of data\[0\].paragraphs\[0\].qas\[0\] too"),
        (squad({**GOOD, "question": " "}), {}, r"qas\[0\].question: question is ' '; expected text"),
        (squad({**GOOD, "answers": []}), {}, r"qas\[0\]: no answer; expected one, or pass --version_2_with_negative"),
        (squad({**GOOD, "answers": [{"text": "garden", "answer_start": 18}]}), {}, r"answers\[0\]: 'garden' is not at answer_start 18, where the context has ' garde'; it stands at 19"),
        (squad({**GOOD, "answers": [{"text": "garden", "answer_start": "19"}]}), {}, r"answers\[0\]: answer_start is '19'; expected a number"),
        (squad({**GOOD, "answers": ["garden"]}), {}, r"answers\[0\]: 'garden'; expected text and answer_start"),
        (squad({**GOOD, "is_impossible": "no"}), {"with_negative": True}, r"is_impossible: 'no'; expected true or false"),
    ],
)  # fmt: skip
def test_bad_questions_are_named_by_their_place(tmp_path, content, flags, message):
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        read(path, **flags)


CMRC = {
    "context_text": CONTEXT,
    "qas": [{"query_id": "1", "query_text": "Who?", "answers": ["cat"]}],
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([CMRC], r"a.json \[0\].qas\[0\].answers\[0\]: 'cat' is not in the text"),
        ([{**CMRC, "qas": ["Who?"]}], r"\[0\].qas\[0\]: 'Who\?'; expected an object"),
        ([{**CMRC, "qas": None}], r"\[0\].qas: None; expected a list"),
        ([CMRC, 3], r"a.json \[1\]: no 'context_text' in it, only 3"),
        ([{**CMRC, "qas": [{"query_id": "1", "query_text": "W?", "answers": [3]}]}], r"answers\[0\]: 3; expected text"),
        (squad({**GOOD, "question": "\ud83d"}), "question: half of a surrogate pair in the question"),
    ],
)  # fmt: skip
def test_damaged_questions_are_named_too(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read(path)


def test_bad_questions_can_be_left_out(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(squad(GOOD, {**GOOD, "id": "2", "answers": [{"text": "x", "answer_start": 0}]}))
    )
    assert [question.id for question in read(path, skip=True)] == ["1"]
    listed = (tmp_path / "bad_rows.tsv").read_text().splitlines()
    assert listed[1].split("\t")[1] == "data[0].paragraphs[0].qas[1].answers[0]"


def test_questions_to_predict_need_no_answers(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(squad({"id": 7, "question": "Who?"})))
    assert read(path, answered=False)[0][:4] == ("7", "Who?", CONTEXT, ())


# --- Windows and spans ---

TEXT = (GOLDEN / "corpus.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer():
    return FullTokenizer(str(GOLDEN / "vocab.txt"))


@pytest.mark.parametrize(("length", "stride"), [(16, 1), (24, 7), (64, 32), (512, 128)])
def test_positions_of_answers_stand_for_their_texts(tokenizer, length, stride):
    """Each answer is found again from the positions in every window that holds it, in any script."""
    rng = random.Random(length)
    encoder = spans.QuestionEncoder(tokenizer, length, 4, stride)
    contexts = [TEXT[start : start + 300] for start in range(0, 2400, 300)]
    contexts += [
        "東京の大学で学ぶ。京都へ行く the people",
        "Ünïcode cafés — 3,000m²  of\u200bit\n\nall",
    ]
    for context in contexts:
        offsets = encoder.tokens(context).offsets
        covered = np.zeros(len(offsets), int)
        for number, window in enumerate(encoder.windows("who is the king of the people", context)):
            place = spans.place_of(window)
            kept = [t for t in range(place.first, place.last) if place.begin <= t < place.end]
            for token in kept:
                covered[token - place.first + place.start] += 1
            first = rng.randrange(place.start, place.start + place.last - place.first)
            last = min(first + rng.randrange(3), place.start + place.last - place.first - 1)
            text = context[offsets[first, 0] : offsets[last, 1]]
            question = Question("1", "", context, (Answer(text, int(offsets[first, 0])),))
            begin, end = encoder.positions(question, window)
            found = context[
                offsets[begin - place.first + place.start, 0] : offsets[
                    end - place.first + place.start, 1
                ]
            ]
            assert found == text, (number, window)
        assert (covered == 1).all()  # every token has its most context in one window


def test_windows_are_the_published_ones(tokenizer):
    """Starts and lengths as run_squad.py published, restated; the query is cut to its length."""
    context = " ".join(["king"] * 50)
    for max_seq_length, stride, max_query in ((24, 5, 6), (40, 128, 64), (100, 30, 3)):
        encoder = spans.QuestionEncoder(tokenizer, max_seq_length, max_query, stride)
        query = tokenizer.encode("who is the king")[:max_query]
        room = max_seq_length - len(query) - 3
        expected, start = [], 0
        while start < 50:
            length = min(50 - start, room)
            expected.append((start, length))
            if start + length == 50:
                break
            start += min(length, stride)
        found = [spans.place_of(window) for window in encoder.windows("who is the king", context)]
        assert [(place.start, place.last - place.first) for place in found] == expected


def published_spans(windows, offsets, context, n_best, longest):
    """The published search over all windows of a question, restated plainly: texts and scores."""
    found = []
    for place, logits in windows:
        starts = sorted(range(len(logits)), key=lambda t: -logits[t][0])[:n_best]
        ends = sorted(range(len(logits)), key=lambda t: -logits[t][1])[:n_best]
        for start in starts:
            for end in ends:
                inside = all(place.first <= t < place.last for t in (start, end))
                if not inside or not place.begin <= start < place.end:
                    continue
                if end < start or end - start + 1 > longest:
                    continue
                found.append((place, start, end, logits[start][0] + logits[end][1]))
    found.sort(key=lambda one: -one[3])
    texts, seen = [], set()
    for place, start, end, score in found:
        shift = place.start - place.first
        text = context[offsets[start + shift][0] : offsets[end + shift][1]]
        if len(texts) < n_best and text not in seen:
            seen.add(text)
            texts.append((text, score))
    return texts


@pytest.mark.parametrize("n_best", [1, 5, 20])
def test_spans_are_those_of_the_published_search(tokenizer, n_best):
    rng = np.random.default_rng(n_best)
    encoder = spans.QuestionEncoder(tokenizer, 32, 8, 10)
    context = TEXT[:500] + TEXT[:200]  # the same texts again
    places = encoder.places("who is the king", context)
    offsets = encoder.tokens(context).offsets
    for _ in range(5):
        windows = [
            (place, rng.normal(size=(place.last + 1, 2)).astype(np.float32)) for place in places
        ]
        nbest = spans.NBest(1, n_best)
        for place, logits in windows:
            nbest.add(0, context, spans.best_spans(logits, place, offsets, n_best, 10), logits[0])
        found = [(context[one.begin : one.end], one.score) for one in nbest.spans(0)]
        expected = published_spans(windows, offsets, context, n_best, 10)
        assert [text for text, _ in found] == [text for text, _ in expected]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-6)
        null = min(logits[0].sum() for _, logits in windows)
        assert nbest.null[0].sum() == pytest.approx(null)


def test_short_lengths_end():
    """The published windows never ended where the query filled them."""
    encoder = spans.QuestionEncoder(FullTokenizer(str(GOLDEN / "vocab.txt")), 8, 64, 3)
    windows = encoder.windows("who is the king of all the people of the land", TEXT[:400])
    assert max(len(window.encoded.input_ids) for window in windows) <= 8
    assert len(windows) > 20


def test_a_context_without_a_token_offers_no_span(tokenizer):
    encoder = spans.QuestionEncoder(tokenizer, 16, 8, 4)
    for context in ("", "\u200b", "\ufeff\x00"):
        [window] = encoder.windows("who is the king", context)
        place, offsets = spans.place_of(window), encoder.tokens(context).offsets
        logits = np.ones((len(window.encoded.input_ids), 2), np.float32)
        assert spans.best_spans(logits, place, offsets, 20, 30) == []
        assert encoder.positions(Question("1", "", context, (Answer("x", 0),)), window) == (0, 0)
