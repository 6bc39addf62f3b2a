r"""Shows the records of TFRecord files: tokens, what is masked, labels.

Reads   TFRecord files of any stage, and the vocabulary that they were made with.
Writes  to standard output.

Example:
  bert inspect --input_file=demo_output/pretrain.tfrecord --vocab_file=sample_data/vocab.txt \
    --num_records=2
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Optional

import numpy as np

from bert_toolkit import cli
from bert_toolkit.io import files, tfrecord
from bert_toolkit.options import option
from tokenization import load_vocab

IDS, MASK, SEGMENTS = "input_ids", "input_mask", "segment_ids"
POSITIONS, MASKED_IDS, WEIGHTS = "masked_lm_positions", "masked_lm_ids", "masked_lm_weights"
SHOWN_VALUES = 8  # of a feature that is not known


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of this command."""

    input_file: str = option(
        "", "TFRecord files: paths and glob patterns, separated by commas.", required=True
    )
    vocab_file: Optional[str] = option(
        None, "The vocabulary they were made with, to show tokens rather than ids."
    )
    num_records: int = option(5, "Records of each file to show.", lower=1)

    GROUPS: ClassVar = {"Input": ("input_file", "vocab_file", "num_records")}


def run(options: Options) -> None:
    """Prints the first records of each file.

    Raises:
      UserError: a file cannot be read, or is not TFRecord data.
    """
    paths = files.expand_inputs(options.input_file, "input_file")
    tokens = None
    if options.vocab_file:
        tokens = {number: token for token, number in load_vocab(options.vocab_file).items()}
    for path in paths:
        note = tfrecord.read_note(path)
        print(f"{path}: {note_line(note)}")
        records = itertools.islice(tfrecord.read_records(path), options.num_records)
        for number, data in enumerate(records, 1):
            print(f"record {number}")
            features = tfrecord.features_of(data, f"{path} record {number}")
            for line in record_lines({name: values(one) for name, one in features.items()}, tokens):
                print(f"  {line}")


def note_line(note: Optional[Mapping[str, Any]]) -> str:
    """Returns how the data were made, as the note beside them says."""
    if not isinstance(note, dict):
        return "no note beside it"
    return ", ".join(
        f"{name} {value}"
        for name, value in note.items()
        if isinstance(value, (int, float, str)) and "sha256" not in name
    )


def values(feature: Any) -> Sequence:
    """Returns the values of a tf.train.Feature: whole numbers, floats or bytes."""
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def record_lines(
    record: Mapping[str, Sequence], tokens: Optional[Mapping[int, str]]
) -> Iterator[str]:
    """Yields lines that show a record: its sequence, its masked tokens, then all other features.

    Args:
      record: name -> values.
      tokens: id -> token; None to show ids.
    """
    shown: set[str] = set()

    def name_of(number: int) -> str:
        return str(number) if tokens is None else tokens.get(number, f"<id {number}>")

    real: list[int] = []  # positions that are not padding
    if _are_alike(record, IDS, MASK):
        shown |= {IDS, MASK}
        real = [place for place, is_token in enumerate(record[MASK]) if is_token]
        yield f"length     {len(real)} of {len(record[IDS])}"
        segments: Sequence[int] = [0] * len(record[IDS])
        if _are_alike(record, IDS, SEGMENTS):
            shown.add(SEGMENTS)
            segments = record[SEGMENTS]
        for segment, places in itertools.groupby(real, key=segments.__getitem__):
            yield f"segment {segment}  {' '.join(name_of(record[IDS][place]) for place in places)}"
    if real and _are_alike(record, POSITIONS, MASKED_IDS) and _fit(record):
        shown |= {POSITIONS, MASKED_IDS, WEIGHTS}
        yield _masked_line(record, name_of)
    for name in sorted(record.keys() - shown):
        if real and _are_alike(record, IDS, name):
            yield f"{name}  {' '.join(str(record[name][place]) for place in real)}"
        else:
            yield f"{name}  {_few(record[name])}"


def _are_alike(record: Mapping[str, Sequence], one: str, other: str) -> bool:
    """Returns whether two features are whole numbers, as many of one as of the other."""
    found = [record.get(name, ()) for name in (one, other)]
    numbers = all(isinstance(value, int) for values in found for value in values)
    return numbers and len(found[0]) == len(found[1]) > 0


def _fit(record: Mapping[str, Sequence]) -> bool:
    """Returns whether the masked positions are positions, and have weights."""
    inside = all(0 <= place < len(record[IDS]) for place in record[POSITIONS])
    return inside and len(record.get(WEIGHTS, ())) == len(record[POSITIONS])


def _masked_line(record: Mapping[str, Sequence], name_of) -> str:
    masked = zip(record[POSITIONS], record[MASKED_IDS], record[WEIGHTS])
    real = [(place, number) for place, number, weight in masked if weight]
    there = ", ".join(
        f"{place} {name_of(number)} (reads {name_of(record[IDS][place])})" for place, number in real
    )
    return f"masked     {len(real)} of at most {len(record[POSITIONS])}: {there}"


def _few(found: Sequence) -> str:
    """Returns the values of a feature, the first of many."""
    texts = [
        one.decode("utf-8", "replace")
        if isinstance(one, bytes)
        else f"{np.float32(one):g}"
        if isinstance(one, float)
        else str(one)
        for one in found[:SHOWN_VALUES]
    ]
    more = f" ... ({len(found):,} values)" if len(found) > SHOWN_VALUES else ""
    return " ".join(texts) + more


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
