"""Words for [MASK] from Python; see encoder.py.

from bert_toolkit import FillMask

with FillMask("out/pretrained") as model:
    [[candidates]] = model.fill(["Anna took the [MASK] to Norby."])
    print(candidates[0].word, candidates[0].probability, candidates[0].text)
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import features
from bert_toolkit.inference.pretrained import PretrainedModel, masked_lm
from bert_toolkit.results import Candidate
from bert_toolkit.text import batches
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.text.tokenizer_rules import is_special
from tokenization import MASK, UNKNOWN, FullTokenizer

# Beginnings of words that the search for words of several pieces goes on with, at least.
BEAM = 10


class FillMask(PretrainedModel):
    """Fills [MASK] in texts, by a model with the masked-LM head."""

    HEAD = masked_lm("log_probabilities")
    WHOLE = (MASK,)

    def fill(
        self,
        texts: Sequence[str],
        top_k: int = 5,
        num_pieces: int = 1,
        targets: Optional[Sequence[str]] = None,
        batch_size: int = 32,
        names: Optional[Sequence[str]] = None,
    ) -> list[list[list[Candidate]]]:
        """Returns the most probable candidates, of each [MASK] of each text.

        Args:
          texts: with [MASK] in them.
          top_k: how many candidates of a [MASK].
          num_pieces: WordPieces of a word. Words of several are searched for from the left, with a
            beam of max(top_k, BEAM): one that begins a word, then those that go on with it.
          targets: words to choose among, of `num_pieces` pieces each; probabilities are as they are
            among all.
          batch_size: sequences in a batch.
          names: of the texts, for errors.

        Raises:
          UserError: a text has no [MASK], or one that is cut off; a target has other pieces.
        """
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, not one text")
        names = names or [f"text {number}" for number in range(len(texts))]
        choices = _Choices(self._model.tokenizer, num_pieces, targets)
        width = len(choices.targets) or max(top_k, BEAM)
        masked = [self._encode(text, name, num_pieces) for text, name in zip(texts, names)]
        _warn_of_cut(sum(one.encoded.cut > 0 for one in masked), self._model.max_seq_length)
        beams: _Beams = {
            (number, mask): [_Beginning(0.0, ())]
            for number, one in enumerate(masked)
            for mask in range(len(one.places))
        }
        for _ in range(num_pieces):
            beams = self._extend(masked, beams, choices, width, batch_size)
        found: list[list[list[Candidate]]] = [[] for _ in texts]
        for (number, mask), beginnings in beams.items():
            best = beginnings[:top_k]
            found[number].append([self._candidate(masked[number], mask, one) for one in best])
        return found

    def _encode(self, text: str, name: str, num_pieces: int) -> "_Masked":
        """Returns a text with `num_pieces` masks for each of its own."""
        tokenizer = self._model.tokenizer
        tokens, offsets = tokenizer.tokenize_with_offsets(text)
        spans = [span for token, span in zip(tokens, offsets) if token == MASK]
        if not spans:
            raise UserError(f"{name}: no {MASK} in it; expected one or more to fill")
        ids: list[int] = []
        places = []
        for token, number in zip(tokens, tokenizer.convert_tokens_to_ids(tokens)):
            if token == MASK:
                places.append(1 + len(ids))  # after [CLS]
            ids += [number] * (num_pieces if token == MASK else 1)
        [window] = self._model.encoder.windows(ids, [])
        if places[-1] + num_pieces >= len(window.encoded.input_ids):
            raise UserError(
                f"{name}: a {MASK} is cut off, as {len(ids) + 2} tokens are more than"
                f" max_seq_length {self._model.max_seq_length}; shorten the text"
            )
        return _Masked(text, spans, window.encoded, places)

    def _extend(
        self,
        masked: Sequence["_Masked"],
        beams: "_Beams",
        choices: "_Choices",
        width: int,
        batch_size: int,
    ) -> "_Beams":
        """Returns the most probable beginnings that are a piece longer, of each [MASK]."""
        rows = list(_rows(masked, beams))
        found: _Beams = {key: [] for key in beams}
        lengths = [len(row.input_ids) for row in rows]
        for numbers in batches.by_length(lengths, batch_size, 0):  # V numbers for each [MASK]
            batch = [rows[number] for number in numbers]
            values = self._model.run_batch(
                [
                    {
                        **features(masked[row.text].encoded._replace(input_ids=row.input_ids)),
                        "masked_lm_positions": row.positions,
                    }
                    for row in batch
                ]
            )  # [B, P, V]
            for row, of_row in zip(batch, values):
                for (mask, before), log_probabilities in zip(row.asked, of_row):
                    ids = choices.after(before.ids)
                    found[row.text, mask] += [
                        _Beginning(before.log_probability + float(value), (*before.ids, number))
                        for number, value in _best(log_probabilities, ids, width)
                    ]
        return {key: heapq.nlargest(width, of_one) for key, of_one in found.items()}

    def _candidate(self, masked: "_Masked", mask: int, found: "_Beginning") -> Candidate:
        pieces = tuple(self._model.tokenizer.convert_ids_to_tokens(found.ids))
        word = pieces[0] + "".join(piece.removeprefix("##") for piece in pieces[1:])
        begin, end = masked.spans[mask]
        before = masked.text[:begin]
        if word.startswith("##") and len(word) > 2:  # it goes on with the word before
            text = before.rstrip() + word[2:]
        else:
            text = before + word
        probability = math.exp(found.log_probability)
        return Candidate(word, pieces, probability, text + masked.text[end:])


class _Masked(NamedTuple):
    """A text to fill: where each of its masks is in it, and in the sequence the first for it."""

    text: str
    spans: list[tuple[int, int]]
    encoded: Encoded
    places: list[int]


class _Beginning(NamedTuple):
    """The first pieces of a word, by what they are compared by."""

    log_probability: float
    ids: tuple[int, ...]


# (text, mask in it) -> beginnings of what may stand there, the most probable first.
_Beams = dict[tuple[int, int], list[_Beginning]]


class _Row(NamedTuple):
    """A sequence to compute, and the (mask, beginning) that it has a position for."""

    text: int
    input_ids: list[int]
    positions: list[int]
    asked: list[tuple[int, _Beginning]]


def _rows(masked: Sequence[_Masked], beams: _Beams) -> Iterator[_Row]:
    """Yields a sequence for each beginning; where nothing is filled yet, one for the whole text."""
    shared: dict[int, _Row] = {}
    for (number, mask), beginnings in beams.items():
        encoded, place = masked[number].encoded, masked[number].places[mask]
        for beginning in beginnings:
            row = shared.get(number)
            if row is None or beginning.ids:
                filled = list(encoded.input_ids)
                filled[place : place + len(beginning.ids)] = beginning.ids
                row = _Row(number, filled, [], [])
                if not beginning.ids:
                    shared[number] = row
                else:
                    yield row
            row.positions.append(place + len(beginning.ids))
            row.asked.append((mask, beginning))
    yield from shared.values()


def _best(log_probabilities: np.ndarray, ids: np.ndarray, width: int) -> list[tuple[int, float]]:
    """Returns the most probable of some ids, the best first, with their values."""
    values = log_probabilities[ids]
    if width < len(ids):
        chosen = np.argpartition(-values, width)[:width]
        ids, values = ids[chosen], values[chosen]
    order = np.argsort(-values, kind="stable")
    return list(zip(ids[order].tolist(), values[order].tolist()))


def _warn_of_cut(texts: int, length: int) -> None:
    if texts:
        logging.warning("%d texts were cut to %d tokens", texts, length)


class _Choices:
    """What may stand in place of a [MASK], piece by piece.

    Attributes:
      targets: ids of the words to choose among; none for any word.
    """

    def __init__(self, tokenizer: FullTokenizer, num_pieces: int, targets: Optional[Sequence[str]]):
        words = targets or ()
        self.targets = list(dict.fromkeys(_target(tokenizer, word, num_pieces) for word in words))
        tokens = tokenizer.inv_vocab
        starts, inside = sorted(tokens), []
        if num_pieces > 1:
            inside = [number for number in starts if tokens[number].startswith("##")]
            others = sorted(tokens.keys() - set(inside))
            starts = [number for number in others if not is_special(tokens[number])]
            if not inside:
                raise UserError(
                    f"--num_pieces={num_pieces}: the vocabulary has no pieces that begin with ##;"
                    " leave it out"
                )
        self._starts, self._inside = np.array(starts), np.array(inside)

    def after(self, ids: tuple[int, ...]) -> np.ndarray:
        """Returns the ids that may follow the first ones of a word, int64 [N]."""
        if self.targets:
            place = len(ids)
            return np.array(
                sorted({target[place] for target in self.targets if target[:place] == ids})
            )
        return self._inside if ids else self._starts


def _target(tokenizer: FullTokenizer, word: str, num_pieces: int) -> tuple[int, ...]:
    """Returns the ids of a target."""
    ids = [tokenizer.vocab[word]] if word in tokenizer.vocab else tokenizer.encode(word)
    if tokenizer.vocab[UNKNOWN] in ids and word != UNKNOWN:
        raise UserError(f"target {word!r}: not in the vocabulary; leave it out")
    if len(ids) != num_pieces:
        pieces = " ".join(tokenizer.convert_ids_to_tokens(ids))
        raise UserError(
            f"target {word!r}: {len(ids)} pieces ({pieces}), expected {num_pieces}; fill words of"
            f" {len(ids)} pieces in a call of their own, with num_pieces {len(ids)}"
        )
    return tuple(ids)
