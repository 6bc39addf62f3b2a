"""A trained model whose answers others learn from: its logits, computed once and kept."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from bert_toolkit.checkpoints import checkpoint_files, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import InferenceSession, arguments_named
from bert_toolkit.inference.trained import Trained, find_for
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import KINDS
from bert_toolkit.tasks.base import EncodedSplit
from bert_toolkit.tasks.classification import classifier_network, distillation
from bert_toolkit.tasks.tagging import network
from bert_toolkit.tasks.tagging.words import WordEncoder, join
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.training.outputs import Network
from modeling import BertConfig

# Texts whose logits are one file: what an interruption may lose.
PART = 4096


def find_teacher(
    teacher_dir: str,
    kinds: Sequence[str] = KINDS,
    named: str = "a trained classifier; train it by bert classify",
) -> Trained:
    """Returns the model of a directory: of an output directory the best, or the last.

    Args:
      teacher_dir: the directory.
      kinds: of problems that it may be for.
      named: what is expected there, for messages.

    Raises:
      UserError: there is none.
    """
    if not files.is_directory(teacher_dir):
        raise UserError(f"--teacher_dir={teacher_dir}: no such directory")
    with arguments_named(bert_dir="--teacher_dir"):
        return find_for(ModelOptions(bert_dir=teacher_dir), kinds, named)


class Teacher:
    """A classifier's logits for texts; subclasses are of other models."""

    def __init__(self, trained: Trained, options: Any):
        """Takes a model and the options of the command, which say how texts are read."""
        self._trained, self._options = trained, options
        vocabulary = training_notes.Vocabulary.of(trained.files.vocab_file or "")
        training_notes.check_vocabulary(trained.checkpoint, vocabulary)
        self._session: Optional[InferenceSession] = None

    def logits(self, examples: Sequence[Any], directory: str) -> tuple[np.ndarray, str]:
        """Returns the logits, float32 [N, outputs], and a fingerprint of what they depend on.

        They are kept in files below `directory`, some thousand texts each: those that are there
        are not computed again.

        Raises:
          UserError: the sequences are too long for the model.
        """
        fingerprint = self._fingerprint(examples)
        found = []
        with Progress("asking the teacher", "texts", len(examples)) as progress:
            for number, start in enumerate(range(0, len(examples), PART)):
                part = examples[start : start + PART]
                path = os.path.join(directory, fingerprint, f"{number:05d}.npy")
                if not files.exists(path):
                    _write(path, self._compute(part))
                with files.open_binary(path, "rb") as reader:
                    found.append(np.load(reader))
                progress.update(len(part))
        self.close()
        return np.concatenate(found), fingerprint

    def _run(self, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        """Returns the logits for sequences."""
        if self._session is None:
            with arguments_named(max_seq_length="--max_seq_length"):
                self._session = InferenceSession(
                    self._trained.files,
                    self._trained.checkpoint,
                    self._network,
                    "logits",
                    self._options.max_seq_length,
                    num_threads=self._options.num_threads,
                )
        options = self._options
        return self._session.run_encoded(encoded, options.predict_batch_size, options.batch_tokens)

    def _network(self, config: BertConfig) -> Network:
        return classifier_network.network(config, self._trained.problem)

    def _compute(self, examples: Sequence[Any]) -> np.ndarray:
        reader = distillation.reader(self._trained.files, self._options)
        windows = [reader.encode(each.text_a, each.text_b) for each in examples]
        owners = np.repeat(np.arange(len(examples)), [len(of_one) for of_one in windows])
        flat = [window for of_one in windows for window in of_one]
        split = EncodedSplit("", examples, owners, [len(window.input_ids) for window in flat])
        of_examples = split.of_examples(np.array(self._run(flat)))
        return of_examples.astype(np.float32)

    def _how(self) -> list[Any]:
        """Returns the options that say how texts are read."""
        options = self._options
        return [options.max_seq_length, options.truncate, options.doc_stride, options.augment > 0]

    def _text(self, example: Any) -> Any:
        return example[1:3]

    def _fingerprint(self, examples: Sequence[Any]) -> str:
        """Returns a digest of the model, how it reads, and the texts."""
        model = self._trained.files
        hashed = hashlib.sha256(model.config.to_json_string().encode())
        for name, value in sorted(checkpoint_files.read(self._trained.checkpoint).items()):
            hashed.update(name.encode() + np.ascontiguousarray(value).tobytes())
        tokens = training_notes.Vocabulary.of(model.vocab_file or "").digest
        hashed.update(json.dumps([tokens, model.rules.to_dict(), self._how()]).encode())
        for example in examples:
            hashed.update(repr(self._text(example)).encode())
        return hashed.hexdigest()[:16]

    def close(self) -> None:
        """Frees what the model holds."""
        if self._session is not None:
            self._session.close()
            self._session = None


class TaggingTeacher(Teacher):
    """A tagger's logits for the words of sentences, those of a sentence after those of another."""

    def _network(self, config: BertConfig) -> Network:
        return network.network(config, self._trained.problem.labels)

    def _compute(self, examples: Sequence[Any]) -> np.ndarray:
        """Returns float32 [words, labels]."""
        options, labels = self._options, len(self._trained.problem.labels)
        tokenizer = self._trained.files.tokenizer()
        encoder = WordEncoder(tokenizer, options.max_seq_length, options.doc_stride)
        parts = [encoder.encode(sentence.words) for sentence in examples]
        outputs = iter(self._run([part.encoded for of_one in parts for part in of_one]))
        words = [
            join(
                [(part.first_word, next(outputs)[part.places]) for part in of_one],
                len(sentence.words),
                labels,
            )
            for sentence, of_one in zip(examples, parts)
        ]
        return np.concatenate(words)

    def _how(self) -> list[Any]:
        return [self._options.max_seq_length, self._options.doc_stride]

    def _text(self, example: Any) -> Any:
        return example.words


def _write(path: str, values: np.ndarray) -> None:
    with files.replacing([path]) as [name], files.open_binary(name, "wb") as writer:
        np.save(writer, values)
