"""Which sequences share a batch."""

import numpy as np
import pytest

from bert_toolkit.text import batches


def grouped(lengths, size, tokens):
    return list(batches.grouped(lengths, int, size, tokens))


def test_short_sequences_share_a_batch_up_to_its_tokens():
    assert grouped([2, 2, 3, 3, 4, 5, 6], 1, 10) == [[2, 2, 3], [3, 4], [5], [6]]
    assert grouped([1] * 7, 2, 4) == [[1] * 4, [1] * 3]


def test_a_batch_has_its_size_whatever_the_tokens():
    assert grouped([2, 2, 3, 3, 4, 5, 6], 3, 0) == [[2, 2, 3], [3, 4, 5], [6]]
    assert grouped([100] * 5, 2, 128) == [[100, 100], [100, 100], [100]]
    assert grouped([], 2, 128) == []


def test_padding_counts_where_lengths_are_not_sorted():
    assert grouped([8, 1, 1, 1, 1], 1, 24) == [[8, 1, 1], [1, 1]]


@pytest.mark.parametrize(("size", "tokens"), [(1, 0), (8, 0), (8, 512), (32, 4096)])
def test_every_sequence_is_in_one_batch_with_others_of_its_length(size, tokens):
    lengths = np.random.default_rng(1).integers(2, 129, 1000).tolist()
    found = list(batches.by_length(lengths, size, tokens))
    flat = [number for batch in found for number in batch]
    assert sorted(flat) == list(range(1000))
    assert [lengths[number] for number in flat] == sorted(lengths)
    for batch in found:
        padded = len(batch) * max(lengths[number] for number in batch)
        assert len(batch) <= size or padded <= tokens
