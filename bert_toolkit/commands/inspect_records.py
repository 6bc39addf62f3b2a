r"""Shows the records of TFRecord files: tokens, what is masked, labels.

Reads   TFRecord files of any stage, and the vocabulary that they were made with.
Writes  to standard output.

Example:
  bert inspect --input_file=demo_output/pretrain.tfrecord --vocab_file=sample_data/vocab.txt \
    --num_records=2
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Optional

from bert_toolkit import cli
from bert_toolkit.io import files, tfrecord
from bert_toolkit.options import option
from bert_toolkit.text import shown
from tokenization import load_vocab


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
            for line in shown.record_lines(shown.values_of(features), tokens):
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


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
