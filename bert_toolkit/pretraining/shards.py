"""Pretraining data, a shard at a time: what the local run and the Beam pipeline have in common.

A shard is made from its own part of the corpus and its own random numbers. So it does not matter
which process makes it, or when, and no more than a shard has to fit into memory.
"""

import contextlib
import dataclasses
import functools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, Optional

from bert_toolkit.checkpoints import training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tfrecord
from bert_toolkit.io.progress import Progress, size
from bert_toolkit.pretraining import masking
from bert_toolkit.pretraining.corpus import Corpus, Span, whole_lines
from bert_toolkit.pretraining.masking import CONTINUES_WORD, Document, Instance, Sentence
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.text import segmenters, tokenizer_rules
from tokenization import UNKNOWN, FullTokenizer, garbage_collection_paused


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what comes of a text; the names are those of the flags."""

    vocab_file: str
    vocab_sha256: str
    rules: tokenizer_rules.Rules
    settings: masking.Settings
    random_seed: int
    word_separator: Optional[str] = None
    segmenter: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of the corpus, and the files that its instances go to.

    One shard of one is the published way: one source of chance for all, and maybe several files,
    which share the instances in turn.
    """

    index: int
    count: int
    corpus: Corpus
    span: Span
    outputs: tuple[str, ...]

    def rngs(self, seed: int, repetitions: int) -> list[random.Random]:
        """Returns the source of chance of each repetition."""
        if self.count == 1:
            return [random.Random(seed)] * repetitions
        return [
            random.Random(f"seed {seed} shard {self.index} repetition {repetition}")
            for repetition in range(repetitions)
        ]


@dataclasses.dataclass
class Summary:
    """What was read and made, for the console and the notes beside the data."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    instances: int = 0
    instance_tokens: int = 0
    random_next: int = 0
    bytes: int = 0

    def __add__(self, other: "Summary") -> "Summary":
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Summary(**{name: ours[name] + theirs[name] for name in ours})

    def text(self, settings: masking.Settings) -> str:
        """Returns the summary as a line or two to read."""
        instances = max(1, self.instances)
        parts = [
            f"{self.documents:,} documents, {self.sentences:,} sentences, {self.tokens:,} tokens"
            f" ({self.unknown_tokens / max(1, self.tokens):.2%} [UNK]) -> {self.instances:,}"
            f" instances of {self.instance_tokens / instances:.1f} tokens on average",
            size(self.bytes),
        ]
        if settings.use_next_sentence:
            what = "swapped segments" if settings.sentence_order else "a random next segment"
            parts.insert(1, f"{self.random_next / instances:.0%} with {what}")
        return ", ".join(parts)


def schema(settings: masking.Settings) -> tfrecord.Schema:
    """Returns the features of the records."""
    return pretraining_schema(
        settings.max_seq_length,
        settings.max_predictions_per_seq,
        static_masks=settings.static_masks,
        whole_words=settings.whole_words,
    )


def make(recipe: Recipe, shard: Shard) -> Summary:
    """Makes the files of a shard, all or none, with their notes; returns what was read and made.

    Raises:
      UserError: an input cannot be used, or a file cannot be written.
    """
    tokenizer = _tokenizer(recipe.vocab_file, recipe.rules, recipe.vocab_sha256)
    whole = shard.count == 1
    lines = whole_lines(shard.corpus.paths) if whole else shard.corpus.lines(shard.span)
    summary = Summary()
    documents = read_documents(lines, tokenizer, recipe, summary, not whole)
    if whole:
        check_documents(len(documents), shard.corpus, recipe.settings)
    instances = create_instances(documents, tokenizer, recipe, shard)
    _write(instances, recipe, shard, tokenizer, summary)
    return summary


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_file: str, rules: tokenizer_rules.Rules, digest: str) -> FullTokenizer:
    """One process makes many shards, with what the tokenizer remembers from the ones before."""
    return rules.tokenizer(vocab_file)


def check_documents(count: int, corpus: Corpus, settings: masking.Settings) -> None:
    """Raises a UserError if a corpus has too few documents to make instances of."""
    names = ", ".join(corpus.names[:3]) + (", ..." if len(corpus.names) > 3 else "")
    if count == 0:
        raise UserError(f"--input_file={names}: no text in it; expected sentences, one a line")
    if count == 1 and settings.needs_two_documents:
        raise UserError(
            f"--input_file={names}: one document only, so that a random next segment would come"
            " from the same document; put a blank line between documents, or pass"
            " --use_next_sentence=false or --sentence_order"
        )


def read_documents(
    lines: Iterable[str],
    tokenizer: FullTokenizer,
    recipe: Recipe,
    summary: Summary,
    quiet: bool = False,
) -> list[Document]:
    """Reads and tokenizes text; documents end at blank lines, and only there, as published."""
    unknown = tokenizer.vocab[UNKNOWN]
    encode = _encoder(tokenizer, recipe)
    marked = recipe.settings.words_are_marked
    documents: list[Document] = [[]]
    with garbage_collection_paused(), Progress("reading", "lines", quiet=quiet) as progress:
        for line in lines:
            progress.update()
            line = line.strip()
            if not line:
                documents.append([])
                continue
            sentence = encode(line)
            ids = [token % CONTINUES_WORD for token in sentence] if marked else sentence
            summary.unknown_tokens += ids.count(unknown)
            if sentence:
                documents[-1].append(sentence)
                summary.tokens += len(sentence)
    documents = [document for document in documents if document]
    summary.documents = len(documents)
    summary.sentences = sum(map(len, documents))
    return documents


def _encoder(tokenizer: FullTokenizer, recipe: Recipe) -> Callable[[str], Sentence]:
    """Returns the function that encodes a line, its words marked if so asked."""
    if recipe.segmenter is not None:
        marker = segmenters.WordMarker(tokenizer, recipe.segmenter)
        return lambda line: _mark(*marker.encode(line))
    separator = recipe.word_separator
    if separator is not None:
        return lambda line: _encode_separated(line, tokenizer, separator)
    return tokenizer.encode


def _mark(ids: Sequence[int], inside: Sequence[bool]) -> Sentence:
    return [token + CONTINUES_WORD * is_inside for token, is_inside in zip(ids, inside)]


def _encode_separated(line: str, tokenizer: FullTokenizer, separator: str) -> Sentence:
    """Encodes text whose words are told apart by a separator; marks the tokens inside of words."""
    ids: Sentence = []
    for word in line.split() if separator.isspace() else line.split(separator):
        tokens = tokenizer.encode(word)
        ids += tokens[:1]
        ids += [token + CONTINUES_WORD for token in tokens[1:]]
    return ids


def create_instances(
    documents: list[Document], tokenizer: FullTokenizer, recipe: Recipe, shard: Shard
) -> Iterator[Instance]:
    """Yields the instances of a shard."""
    if not documents:
        return iter(())
    rngs = shard.rngs(recipe.random_seed, recipe.settings.dupe_factor)
    return masking.create_instances(documents, masking.Vocabulary(tokenizer), recipe.settings, rngs)


def _write(
    instances: Iterable[Instance],
    recipe: Recipe,
    shard: Shard,
    tokenizer: FullTokenizer,
    summary: Summary,
) -> None:
    """Writes the instances in turn to the output files, and the notes beside them."""
    fields = schema(recipe.settings)
    outputs = shard.outputs
    with files.replacing([*outputs, *map(tfrecord.note_path, outputs)]) as names:
        with (
            contextlib.ExitStack() as stack,
            Progress("writing", "instances", quiet=shard.count > 1) as progress,
        ):
            opened = map(tfrecord.RecordWriter, names[: len(outputs)])
            writers = [stack.enter_context(writer) for writer in opened]
            for instance, record in encoded(instances, fields):
                writers[summary.instances % len(writers)].write(record)
                summary.instances += 1
                summary.instance_tokens += len(instance.input_ids)
                summary.random_next += instance.is_random_next
                progress.update()
        summary.bytes += sum(writer.bytes for writer in writers)
        for writer, note_name in zip(writers, names[len(outputs) :]):
            note = {
                **origin(recipe, shard),
                **_special_ids(tokenizer),
                "vocabulary_sha256": _entries_digest(recipe.vocab_file, recipe.vocab_sha256),
                "records": writer.records,
                "bytes": writer.bytes,
                "summary": dataclasses.asdict(summary),
            }
            with files.open_binary(note_name, "wb") as note_writer:
                note_writer.write(tfrecord.note_text(note).encode())


def encoded(
    instances: Iterable[Instance], fields: tfrecord.Schema
) -> Iterator[tuple[Instance, bytes]]:
    """Yields instances with their records."""
    return fields.encode_each((instance, _values(instance)) for instance in instances)


def _values(instance: Instance) -> dict[str, Any]:
    """Returns the features of an instance by name, unpadded."""
    length, first = len(instance.input_ids), instance.first_segment
    return {
        "input_ids": instance.input_ids,
        "input_mask": b"\1" * length,
        "segment_ids": b"\0" * first + b"\1" * (length - first),
        "masked_lm_positions": instance.masked_positions,
        "masked_lm_ids": instance.masked_ids,
        "masked_lm_weights": (1.0,) * len(instance.masked_ids),
        "next_sentence_labels": b"\1" if instance.is_random_next else b"\0",
        "word_starts": instance.word_starts,
    }


def origin(recipe: Recipe, shard: Shard) -> dict[str, Any]:
    """Returns what the data is made from, as its note tells it."""
    corpus = shard.corpus
    return {
        "made_by": "create_pretraining_data",
        "vocab_file": recipe.vocab_file,
        "vocab_sha256": recipe.vocab_sha256,
        **recipe.rules.to_dict(),
        **dataclasses.asdict(recipe.settings),
        "word_separator": recipe.word_separator,
        "segmenter": recipe.segmenter,
        "random_seed": recipe.random_seed,
        "input_files": list(corpus.names),
        "input_bytes": corpus.size,
        "shard": shard.index,
        "num_shards": shard.count,
    }


@functools.lru_cache(maxsize=1)
def _entries_digest(vocab_file: str, digest: str) -> str:
    """Returns the digest of the vocabulary's entries, which that of the file depends on."""
    return training_notes.Vocabulary.of(vocab_file).digest


def _special_ids(tokenizer: FullTokenizer) -> dict[str, Any]:
    vocabulary = masking.Vocabulary(tokenizer)
    return {
        "vocab_size": max(vocabulary.replacements) + 1,
        "special_ids": {"cls": vocabulary.cls, "sep": vocabulary.sep, "mask": vocabulary.mask},
    }


def finished(recipe: Recipe, shard: Shard) -> Optional[Summary]:
    """Returns the summary of a shard that an earlier run made of the same, if it is there whole."""
    expected = json.loads(json.dumps(origin(recipe, shard)))
    for output in shard.outputs:
        note = tfrecord.read_note(output) if files.exists(output) else None
        if note is None or note.get("bytes") != files.size(output):
            return None
        if any(note.get(name) != value for name, value in expected.items()):
            return None
    return Summary(**note["summary"]) if note else None


def remove(unwanted: Iterable[Shard]) -> None:
    """Removes the files of shards."""
    for shard in unwanted:
        for output in shard.outputs:
            files.remove(output)
            files.remove(tfrecord.note_path(output))


def remove_unfinished(outputs: Sequence[str], process: int) -> None:
    """Removes what a process that was killed left half-written."""
    for output in outputs:
        for path in (output, tfrecord.note_path(output)):
            files.remove(files.unfinished_name(path, process))
