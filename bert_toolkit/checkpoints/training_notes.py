"""The note beside a trained model: the vocabulary, the data and the flags it was trained with.

A later run compares them with its own. Models that were made without a note are compared by the
vocab.txt beside them.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tfrecord
from bert_toolkit.options import spelled
from tokenization import load_vocab

FILE = "trained_with.json"
VOCABULARY = "vocab.txt"

# Flags that decide what training gives; those of a stage are the ones that it has.
NOTED_OPTIONS = (
    "seed",
    "train_batch_size",
    "learning_rate",
    "optimizer",
    "learning_rate_schedule",
    "adam_bias_correction",
    "layer_decay",
    "head_learning_rate",
    "unfreeze_schedule",
    "ema_decay",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "rdrop_alpha",
    "freeze",
    "num_warmup_steps",
    "warmup_proportion",
    "max_seq_length",
    "max_predictions_per_seq",
    "use_next_sentence",
    "truncate",
    "doc_stride",
    "class_weights",
    "oversample",
    "label_smoothing",
    "scheme",
    "crf",
    "teacher_dir",
    "unlabeled_file",
    "student",
    "teacher_layers",
    "lstm_size",
    "distillation_loss",
    "temperature",
    "hard_label_weight",
    "hidden_state_weight",
    "attention_weight",
    "augment",
    "mask_probability",
    "ngram_probability",
    "size_power",
)

MAKE_AGAIN = "make the data again with"

# Entries that are there to be given a meaning.
_UNUSED = re.compile(r"\[unused\d+\]")


# --- The vocabulary ---


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What ids stand for.

    Attributes:
      source: the file, or the data set, that has it, for messages.
      digest: see `digest`.
      entries: token -> id; None where only the digest is known.
      advice: what to do with the right one, the beginning of a sentence.
    """

    source: str
    digest: str
    entries: Optional[Mapping[str, int]] = None
    advice: str = "use"

    @classmethod
    def of(cls, vocab_file: str) -> "Vocabulary":
        """Reads the vocabulary of a file."""
        entries = load_vocab(vocab_file)
        return cls(vocab_file, digest(entries), entries)


def digest(entries: Mapping[str, int]) -> str:
    """Returns the SHA-256 digest of token -> id, whatever the file was that it was read from."""
    lines = sorted((number, token) for token, number in entries.items() if token)
    return hashlib.sha256("".join(f"{n}\t{token}\n" for n, token in lines).encode()).hexdigest()


def vocabularies_of_data(paths: Iterable[str]) -> list[Vocabulary]:
    """Returns the different vocabularies that data sets were made with, as their notes tell."""
    found: dict[tuple, Vocabulary] = {}
    for path in paths:
        note = tfrecord.read_note(path) or {}
        names = ("vocab_file", "vocab_sha256", "vocabulary_sha256")
        file, file_digest, noted = key = tuple(note.get(name) for name in names)
        if key in found:
            continue
        if file and files.exists(file) and files.digest(file) == file_digest:
            found[key] = dataclasses.replace(Vocabulary.of(file), source=path, advice=MAKE_AGAIN)
        elif noted:
            found[key] = Vocabulary(path, noted, advice=MAKE_AGAIN)
    return list(found.values())


def check_vocabulary(checkpoint: str, vocabulary: Vocabulary) -> None:
    """Raises a UserError if a model's ids stand for other tokens than `vocabulary` says."""
    found = mismatch(checkpoint, vocabulary)
    if found:
        raise UserError(found)


def mismatch(checkpoint: str, vocabulary: Vocabulary) -> Optional[str]:
    """Returns a sentence if the model of a checkpoint was trained with another vocabulary.

    Words in the place of [unused] entries, and entries after the last one, are no other vocabulary.
    None also where nothing beside the checkpoint tells.
    """
    directory = os.path.dirname(checkpoint)
    note = read(directory)
    noted = note.get("vocabulary_sha256")
    if noted == vocabulary.digest:
        return None
    own_file = os.path.join(directory, VOCABULARY)
    own = _readable(own_file)
    if own is not None and noted in (None, own.digest):
        return _difference(vocabulary, own, directory)
    if noted is None:
        return None
    came_from = note.get("vocab_file")
    hint = f" ({came_from} when it was trained)" if came_from else ""
    return (
        f"{vocabulary.source}: other entries, or in another order, than the vocabulary that the"
        f" model in {directory} was trained with, as its {FILE} says; {vocabulary.advice} that"
        f" vocabulary{hint}"
    )


def _difference(vocabulary: Vocabulary, own: Vocabulary, directory: str) -> Optional[str]:
    assert own.entries is not None
    if vocabulary.digest == own.digest:
        return None
    where = ""
    if vocabulary.entries is not None:
        changed = [
            (number, token)
            for token, number in own.entries.items()
            if token and vocabulary.entries.get(token) != number and not _UNUSED.fullmatch(token)
        ]
        if not changed:
            return None
        number, token = min(changed)
        there = {number: token for token, number in vocabulary.entries.items()}
        where = f" (token {number} is {there.get(number, '')!r}, there {token!r})"
    return (
        f"{vocabulary.source}: another vocabulary than that of the model in {directory}{where};"
        f" {vocabulary.advice} {own.source}"
    )


def _readable(vocab_file: str) -> Optional[Vocabulary]:
    try:
        return Vocabulary.of(vocab_file) if files.exists(vocab_file) else None
    except UserError:
        return None  # it is not the one to be used


# --- The note ---


def make(
    vocabulary: Optional[Vocabulary],
    data: Mapping[str, Any],
    init_checkpoint: Optional[str],
    options: Any,
) -> dict[str, Any]:
    """Returns what is noted of a training.

    Args:
      vocabulary: of the model, if it is known.
      data: as `data_facts` returns it.
      init_checkpoint: where the weights came from.
      options: of the stage.
    """
    note = {
        "data": dict(data),
        "init_checkpoint": init_checkpoint,
        "flags": {name: getattr(options, name) for name in NOTED_OPTIONS if hasattr(options, name)},
    }
    if vocabulary is not None:
        note |= {"vocab_file": vocabulary.source, "vocabulary_sha256": vocabulary.digest}
    return json.loads(json.dumps(note))


def data_facts(paths: Sequence[str], content: Iterable[Any]) -> dict[str, Any]:
    """Returns what is noted of training data: names, and a digest of what `content` yields."""
    hashed = hashlib.sha256()
    for item in content:
        hashed.update(repr(item).encode())
    more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
    return {"files": ", ".join(paths[:3]) + more, "sha256": hashed.hexdigest()}


def write(directory: str, note: Mapping[str, Any]) -> None:
    """Puts a note beside a model; where training goes on there, it started where it did before."""
    start = note["init_checkpoint"]
    if start and _is_in(start, directory):
        note = {**note, "init_checkpoint": read(directory).get("init_checkpoint", start)}
    files.write_text(os.path.join(directory, FILE), json.dumps(note, indent=2) + "\n")


def read(directory: str) -> dict[str, Any]:
    """Returns the note beside a model; empty if there is none.

    Raises:
      UserError: it is damaged.
    """
    path = os.path.join(directory, FILE)
    if not files.exists(path):
        return {}
    try:
        return dict(json.loads(files.read_text(path)))
    except (ValueError, TypeError):
        raise UserError(f"{path}: not a JSON object; remove it") from None


def differences(directory: str, note: Mapping[str, Any]) -> list[str]:
    """Returns in words by what the training of the model in a directory differs from `note`."""
    before = read(directory)
    if not before:
        return []
    found = []
    old, new = before.get("data", {}), note["data"]
    if old.get("sha256") != new["sha256"]:
        same_name = old.get("files") == new["files"]
        now = "which is another file now" if same_name else f"now {new['files']}"
        found.append(f"on {old.get('files')} ({now})")
    flags = before.get("flags", {})
    for name, value in note["flags"].items():
        earlier = flags.get(name, value)  # the version that trained there may not have had it
        if earlier != value:
            found.append(f"with --{name}={spelled(earlier)} (now {spelled(value)})")
    start, now = before.get("init_checkpoint"), note["init_checkpoint"]
    if start != now and not (now and _is_in(now, directory)):
        found.append(f"from {start or 'random weights'} (now {now or 'random weights'})")
    return found


def _is_in(path: str, directory: str) -> bool:
    return os.path.abspath(path).startswith(os.path.join(os.path.abspath(directory), ""))
