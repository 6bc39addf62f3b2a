"""The conditional random field against enumeration of all tag sequences."""

import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert_toolkit.tasks.tagging import crf, schemes

LABELS = ("O", "B-A", "I-A", "B-B", "I-B")


def score_of(path, emissions, between, rules):
    score = rules.begin[path[0]] + rules.end[path[-1]]
    score += sum(emissions[place, tag] for place, tag in enumerate(path))
    return score + sum(
        between[one, other] + rules.transitions[one, other] for one, other in zip(path, path[1:])
    )


def enumerated(emissions, between, rules):
    """Returns all paths with their scores, and the logarithm of their sum."""
    paths = list(itertools.product(range(len(LABELS)), repeat=len(emissions)))
    scores = np.array([score_of(path, emissions, between, rules) for path in paths], np.float64)
    return paths, scores, np.log(np.exp(scores - scores.max()).sum()) + scores.max()


@pytest.mark.parametrize("has_first", [0, 1])
@pytest.mark.parametrize("has_last", [0, 1])
def test_a_window_may_begin_and_end_inside_of_an_entity(has_first, has_last):
    """The rules of the two ends hold where the sentence begins and ends, not where a window does."""
    rules = crf.Rules.of(LABELS, schemes.IOB2)
    inside = next(number for number, label in enumerate(LABELS) if label.startswith("I-"))
    with tf.Graph().as_default(), tf.Session() as session:
        emissions = tf.zeros([1, 3, len(LABELS)])
        ids, ones = tf.constant([[inside] * 3]), tf.ones([1, 3], tf.int32)
        steps = tf.zeros([len(LABELS)] * 2)
        ends = (tf.constant([has_first]), tf.constant([has_last]))
        [loss] = session.run(crf.loss(emissions, ids, ones, steps, rules, *ends))
    assert (loss > 1000) == bool(has_first)  # IOB2 forbids I at the beginning only


@pytest.fixture
def numbers():
    random = np.random.default_rng(1)
    emissions = random.normal(0, 2, (4, 5, len(LABELS))).astype(np.float32)
    between = random.normal(0, 1, (len(LABELS), len(LABELS))).astype(np.float32)
    return emissions, between


@pytest.mark.platform
def test_the_loss_is_that_of_enumeration(numbers):
    emissions, between = numbers
    rules = crf.Rules.of(LABELS, schemes.IOB2)
    label_ids = np.array([[1, 2, 0, 3, 4], [3, 4, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    lengths = [5, 3, 1, 0]
    mask = np.array([[int(place < length) for place in range(5)] for length in lengths])
    with tf.Graph().as_default(), tf.Session() as session:
        ids, there = (tf.constant(values, tf.int32) for values in (label_ids, mask))
        given, steps = tf.constant(emissions), tf.constant(between)
        whole = tf.ones([4], tf.int32)
        losses = crf.loss(given, ids, there, steps, rules, whole, whole)
        found, *gradients = session.run([losses, *tf.gradients(losses, [given, steps])])
    assert found[3] == 0  # nothing to tag
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not gradients[0][mask == 0].any()
    chain = crf.Chain(between, rules)
    for row, length in enumerate(lengths[:3]):
        own, true = emissions[row, :length], label_ids[row, :length]
        _, _, total = enumerated(own, between, rules)
        expected = total - score_of(true, own, between, rules)
        assert found[row] == pytest.approx(expected, rel=1e-4)
        assert chain.loss(own, true) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scheme", schemes.PREFIXES)
def test_best_tags_and_probabilities_are_those_of_enumeration(numbers, scheme):
    labels = LABELS if scheme != schemes.BIOES else ("O", "B-A", "I-A", "E-A", "S-A")
    emissions, between = numbers
    rules = crf.Rules.of(labels, scheme)
    chain = crf.Chain(between, rules)
    for own in [*emissions, emissions[0, :1]]:
        paths, scores, total = enumerated(own, between, rules)
        best = chain.best(own)
        assert tuple(best) == paths[scores.argmax()]
        tags = [labels[tag] for tag in best]
        assert schemes.strict_entities(tags, scheme) == schemes.entities(tags)
        chances = np.exp(scores - total)
        expected = np.zeros_like(own, np.float64)
        for path, chance in zip(paths, chances):
            expected[np.arange(len(path)), path] += chance
        np.testing.assert_allclose(chain.probabilities(own), expected, atol=1e-5)


def test_nothing_to_tag():
    chain = crf.Chain(np.zeros((5, 5)), crf.Rules.of(LABELS, schemes.IOB2))
    none = np.zeros((0, 5), np.float32)
    assert chain.best(none).shape == (0,)
    assert chain.probabilities(none).shape == (0, 5)
    assert chain.loss(none, np.zeros(0, int)) == 0


@pytest.mark.platform
def test_first_pieces_are_moved_to_the_front():
    mask = np.array([[0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]])
    ids = np.arange(12).reshape(2, 6)
    with tf.Graph().as_default(), tf.Session() as session:
        values = tf.constant(np.stack([ids, -ids], -1), tf.float32)
        found = crf.first_pieces(values, tf.constant(ids, tf.int32), tf.constant(mask, tf.int32))
        emissions, label_ids, there = session.run(found)
    assert there.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert label_ids[0].tolist() == [1, 3, 4]
    assert label_ids[1, 0] == 8
    assert emissions[0].tolist() == [[1, -1], [3, -3], [4, -4]]
