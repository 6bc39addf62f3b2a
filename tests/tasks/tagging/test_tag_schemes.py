"""Tags to entities and back, and scores, which are those of seqeval."""

import json
import random
import warnings

import pytest
from conftest import GOLDEN

from bert_toolkit.tasks.tagging import schemes, scores
from bert_toolkit.tasks.tagging.schemes import BIOES, IOB1, IOB2, Entity

PARTS = 20  # of each kind of tags, of 100 sequences each
TYPES = ("PER", "LOC", "geo-loc")


def random_entities(chance, length):
    found, place = [], 0
    while place < length:
        end = min(length, place + 1 + int(chance.random() * 3))
        if chance.random() < 0.5:
            found.append(Entity(TYPES[int(chance.random() * 3)], place, end))
        place = end
    return found


def sequences(scheme, damaged, part):
    """Returns true and predicted tags of 100 sentences; any tags of the scheme if damaged."""
    chance = random.Random(f"{scheme} {damaged} {part}")
    lengths = [1 + int(chance.random() * 9) for _ in range(100)]
    if damaged:
        tags = schemes.labels(TYPES, scheme)
        one, other = (
            [[tags[int(chance.random() * len(tags))] for _ in range(length)] for length in lengths]
            for _ in range(2)
        )
    else:
        one, other = (
            [schemes.tags_of(random_entities(chance, n), n, scheme) for n in lengths] for _ in "ab"
        )
    mixed = [a if chance.random() < 0.5 else b for a, b in zip(one, other)]
    return one, mixed


def seqeval_scores(true, predicted, scheme, strict):
    """Returns name -> [precision, recall, f1, support] as that package has them."""
    from seqeval import metrics
    from seqeval import scheme as theirs

    known = {IOB1: theirs.IOB1, IOB2: theirs.IOB2, BIOES: theirs.IOBES}
    how = {"mode": "strict", "scheme": known[scheme]} if strict else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = metrics.classification_report(true, predicted, output_dict=True, **how)
    return {
        name.removesuffix(" avg"): [round(float(values[key]), 9) for key in values]
        for name, values in report.items()
        if name != "weighted avg"
    }


def cases():
    for scheme in schemes.PREFIXES:
        for damaged in (False, True):
            for part in range(PARTS):
                for strict in (False, True):
                    yield scheme, damaged, part, strict


def make_golden():
    """python -c "import test_tag_schemes as t; t.make_golden()" where seqeval is installed."""
    found = {}
    for scheme, damaged, part, strict in cases():
        true, predicted = sequences(scheme, damaged, part)
        name = f"{scheme} {damaged} {part} {strict}"
        found[name] = seqeval_scores(true, predicted, scheme, strict)
    (GOLDEN / "seqeval.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


@pytest.mark.parametrize("scheme", schemes.PREFIXES)
def test_scores_are_those_of_seqeval(scheme):
    """Of 2,000 sequences that keep the rules, and as many that do not, kindly and strictly."""
    golden = json.loads((GOLDEN / "seqeval.json").read_text())
    for own, damaged, part, strict in cases():
        if own != scheme:
            continue
        true, predicted = sequences(scheme, damaged, part)
        found = scores.entity_scores(true, predicted, scheme if strict else "")
        expected = golden[f"{scheme} {damaged} {part} {strict}"]
        assert {name: pytest.approx(values) for name, values in expected.items()} == {
            name: list(score) for name, score in found.items()
        }


def test_scores_are_those_of_the_seqeval_that_is_installed():
    pytest.importorskip("seqeval")
    golden = json.loads((GOLDEN / "seqeval.json").read_text())
    for scheme, damaged, part, strict in list(cases())[::7]:
        true, predicted = sequences(scheme, damaged, part)
        found = seqeval_scores(true, predicted, scheme, strict)
        assert found == golden[f"{scheme} {damaged} {part} {strict}"]


@pytest.mark.parametrize("source", schemes.PREFIXES)
@pytest.mark.parametrize("target", schemes.PREFIXES)
def test_conversion_keeps_the_entities(source, target):
    for part in range(PARTS):
        for tags in sequences(source, False, part)[0]:
            converted = schemes.convert(tags, target)
            assert schemes.entities(converted) == schemes.entities(tags)
            assert schemes.strict_entities(converted, target) == schemes.entities(tags)
            assert schemes.convert(converted, source) == tags
            pairs = zip(["O", *converted], [*converted, "O"])
            assert all(schemes.may_follow(*pair, target) for pair in pairs)


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-PER I-PER O B-LOC", IOB2),
        ("I-PER I-PER O I-LOC", IOB1),
        ("I-PER B-PER I-PER O", IOB1),
        ("B-PER E-PER O S-LOC", BIOES),
        ("O O", IOB2),
        ("B-PER O I-PER", None),
        ("B-PER O S-PER", None),
    ],
)
def test_the_scheme_of_tags_is_found(tags, scheme):
    assert schemes.detect([tags.split()]) == scheme


def test_kind_reading_takes_broken_tags_for_entities():
    tags = "I-PER I-PER B-PER O E-LOC I-LOC I-PER".split()
    expected = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5), ("LOC", 5, 6), ("PER", 6, 7)]
    assert schemes.entities(tags) == expected
    assert schemes.strict_entities("I-PER B-PER I-LOC B-LOC".split(), IOB2) == [
        ("PER", 1, 2),
        ("LOC", 3, 4),
    ]


def test_no_entity_at_all():
    found = scores.entity_scores([["O"]], [["O"]])
    assert found == {"micro": (0, 0, 0, 0), "macro": (0, 0, 0, 0)}
    assert "micro" in scores.report([["O"]], [["O"]], IOB2)
