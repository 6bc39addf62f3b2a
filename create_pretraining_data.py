r"""Makes pretraining data from text: masked tokens to predict, and pairs of segments to tell apart.

Reads   plain text (or .gz), UTF-8, one sentence a line, a blank line between documents.
Writes  TFRecord files for run_pretraining.py, and beside each a .json note of how it was made.

Example:
  python create_pretraining_data.py --input_file=sample_data/corpus.txt \
    --vocab_file=sample_data/vocab.txt --output_file=out/pretrain.tfrecord --max_seq_length=64 \
    --max_predictions_per_seq=10 --dupe_factor=5
"""

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags, logging

import tokenization
from bert_toolkit import cli, files, masking, records
from bert_toolkit.errors import UserError
from bert_toolkit.masking import Document, Instance
from bert_toolkit.progress import Progress, size


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Input and output"):
        flags.DEFINE_string(
            "input_file",
            None,
            "Text to read: files and glob patterns, separated by commas.",
            required=True,
        )
        flags.DEFINE_string(
            "output_file",
            None,
            "TFRecord file to write, or several separated by commas, which share the instances.",
            required=True,
        )
    with cli.group("Tokenization"):
        cli.define_tokenizer_flags()
    with cli.group("Instances"):
        flags.DEFINE_integer(
            "max_seq_length",
            128,
            "Longest sequence in tokens, [CLS] and [SEP] included; run_pretraining.py must be"
            " given the same.",
            lower_bound=5,
        )
        flags.DEFINE_integer(
            "max_predictions_per_seq",
            20,
            "Most masked tokens in a sequence; about max_seq_length * masked_lm_prob."
            " run_pretraining.py must be given the same.",
            lower_bound=1,
        )
        flags.DEFINE_float(
            "masked_lm_prob", 0.15, "Share of tokens to mask.", lower_bound=0.0, upper_bound=1.0
        )
        flags.DEFINE_boolean("do_whole_word_mask", False, "Mask all pieces of a word together.")
        flags.DEFINE_integer(
            "dupe_factor", 10, "How many times the text is used, with new masks.", lower_bound=1
        )
        flags.DEFINE_float(
            "short_seq_prob",
            0.1,
            "Share of documents cut into shorter sequences, so that the model sees some.",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        flags.DEFINE_integer(
            "random_seed", 12345, "The same seed and text give the same instances."
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of this stage, by their names."""

    input_file: str
    output_file: str
    vocab_file: str
    do_lower_case: bool = True
    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    do_whole_word_mask: bool = False
    dupe_factor: int = 10
    short_seq_prob: float = 0.1
    random_seed: int = 12345

    def __post_init__(self):
        if self.do_lower_case is None:
            object.__setattr__(self, "do_lower_case", True)
        problems = []
        if not self.vocab_file:
            problems.append("--vocab_file is required")
        outputs = self.output_files()
        if len(set(outputs)) < len(outputs) or not outputs:
            problems.append(f"--output_file={self.output_file}: expected file names, each once")
        cli.check(problems)

    def output_files(self) -> list[str]:
        """Returns the names of the TFRecord files."""
        return [name.strip() for name in self.output_file.split(",") if name.strip()]

    def masking_settings(self) -> masking.Settings:
        """Returns the part that decides how instances are made."""
        names = [field.name for field in dataclasses.fields(masking.Settings)]
        return masking.Settings(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass
class Summary:
    """What was read and made, for the console and the note beside the data."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    instances: int = 0
    instance_tokens: int = 0
    random_next: int = 0
    bytes: int = 0

    def text(self) -> str:
        """Returns the summary as a line or two to read."""
        return (
            f"{self.documents:,} documents, {self.sentences:,} sentences, {self.tokens:,} tokens"
            f" ({self.unknown_tokens / max(1, self.tokens):.2%} [UNK]) -> {self.instances:,}"
            f" instances of {self.instance_tokens / max(1, self.instances):.1f} tokens on average,"
            f" {self.random_next / max(1, self.instances):.0%} with a random next segment,"
            f" {size(self.bytes)}"
        )


def run(options: Options) -> Summary:
    """Makes the data; returns what was read and made.

    Raises:
      UserError: an input cannot be used, or nothing would come of it.
    """
    input_files = files.expand_inputs(options.input_file, "input_file")
    files.check_input(options.vocab_file, "vocab_file")
    tokenizer = tokenization.FullTokenizer(options.vocab_file, options.do_lower_case)
    for problem in tokenization.vocabulary_problems(options.vocab_file):
        logging.warning("%s", problem)
    for name in options.output_files():
        files.check_output(name)
    logging.info(
        "reading %s", ", ".join(input_files[:5]) + (", ..." if len(input_files) > 5 else "")
    )

    summary = Summary()
    documents = read_documents(input_files, tokenizer, summary)
    _check_documents(documents, options)
    rng = random.Random(options.random_seed)
    instances = masking.create_instances(
        documents, masking.Vocabulary(tokenizer), options.masking_settings(), rng
    )
    _write(instances, options, tokenizer, summary)
    logging.info("%s", summary.text())
    if summary.random_next == summary.instances:
        logging.warning(
            "every instance has a random next segment, because every document has one sentence"
            " only: next-sentence prediction learns nothing. Put a blank line between documents,"
            " not sentences."
        )
    for name in options.output_files():
        logging.info("wrote %s", name)
    return summary


def read_documents(input_files: Sequence[str], tokenizer, summary: Summary) -> list[Document]:
    """Reads and tokenizes text; documents end at blank lines, and only there, as published."""
    unknown = tokenizer.vocab[tokenization.UNKNOWN]
    documents: list[Document] = [[]]
    with Progress("reading", "lines") as progress:
        for line in _lines_of_all(input_files):
            progress.update()
            line = line.strip()
            if not line:
                documents.append([])
                continue
            sentence = tokenizer.encode(line)
            if sentence:
                documents[-1].append(sentence)
                summary.tokens += len(sentence)
                summary.unknown_tokens += sentence.count(unknown)
    documents = [document for document in documents if document]
    summary.documents = len(documents)
    summary.sentences = sum(map(len, documents))
    return documents


def _lines_of_all(input_files: Sequence[str]) -> Iterator[str]:
    line = ""
    for index, name in enumerate(input_files):
        if line.strip():
            logging.warning(
                "%s ends without a blank line: its last document goes on in %s",
                input_files[index - 1],
                name,
            )
        for line in files.read_lines(name):  # noqa: UP028 (the last line is looked at above)
            yield line


def _check_documents(documents: Sequence[Document], options: Options) -> None:
    if not documents:
        raise UserError(
            f"--input_file={options.input_file}: no text in it; expected sentences, one a line"
        )
    if len(documents) == 1:
        raise UserError(
            f"--input_file={options.input_file}: one document only, so that a random next segment"
            " would come from the same document; put a blank line between documents"
        )
    expected = options.max_seq_length * options.masked_lm_prob
    if options.max_predictions_per_seq < 0.9 * expected:
        logging.warning(
            "--max_predictions_per_seq=%d limits masking: --masked_lm_prob=%g of %d tokens would"
            " be %d",
            options.max_predictions_per_seq,
            options.masked_lm_prob,
            options.max_seq_length,
            round(expected),
        )


def _write(instances: Iterable[Instance], options: Options, tokenizer, summary: Summary) -> None:
    """Writes the instances in turn to the output files, and the notes beside them."""
    schema = records.pretraining_schema(options.max_seq_length, options.max_predictions_per_seq)
    outputs = options.output_files()
    with files.replacing(outputs + [records.note_path(name) for name in outputs]) as names:
        writers = [records.RecordWriter(name) for name in names[: len(outputs)]]
        with Progress("writing", "instances") as progress:
            for instance in instances:
                writer = writers[summary.instances % len(writers)]
                writer.write(schema.encode(record_values(instance)))
                summary.instances += 1
                summary.instance_tokens += len(instance.input_ids)
                summary.random_next += instance.is_random_next
                progress.update()
        for writer, note_name in zip(writers, names[len(outputs) :]):
            writer.close()
            summary.bytes += writer.bytes
            note = _note(options, tokenizer, summary, writer)
            with files.open_binary(note_name, "wb") as note_writer:
                note_writer.write(records.note_text(note).encode())


def record_values(instance: Instance) -> dict[str, Any]:
    """Returns the features of an instance by name, unpadded."""
    length, first = len(instance.input_ids), instance.first_segment
    return {
        "input_ids": instance.input_ids,
        "input_mask": [1] * length,
        "segment_ids": [0] * first + [1] * (length - first),
        "masked_lm_positions": instance.masked_positions,
        "masked_lm_ids": instance.masked_ids,
        "masked_lm_weights": [1.0] * len(instance.masked_ids),
        "next_sentence_labels": [int(instance.is_random_next)],
    }


def _note(
    options: Options, tokenizer, summary: Summary, writer: records.RecordWriter
) -> dict[str, Any]:
    return {
        "made_by": "create_pretraining_data",
        **dataclasses.asdict(options),
        "vocab_size": max(tokenizer.vocab.values()) + 1,
        "vocab_sha256": files.digest(options.vocab_file),
        "records": writer.records,
        "bytes": writer.bytes,
        "all_files": dataclasses.asdict(summary),
    }


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
