"""A trained classifier whose answers others learn from: its logits, computed once and kept."""

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
from bert_toolkit.tasks.classification.task_data import Example

# Texts whose logits are one file: what an interruption may lose.
PART = 4096


def find_teacher(teacher_dir: str) -> Trained:
    """Returns the classifier of a directory: of an output directory the best, or the last.

    Raises:
      UserError: there is none.
    """
    if not files.is_directory(teacher_dir):
        raise UserError(f"--teacher_dir={teacher_dir}: no such directory")
    with arguments_named(bert_dir="--teacher_dir"):
        if not files.is_directory(teacher_dir):
            raise UserError(f"--teacher_dir={teacher_dir}: no such directory")
        expected = "a trained classifier; train it by bert classify"
        return find_for(ModelOptions(bert_dir=teacher_dir), KINDS, expected)


class Teacher:
    """A classifier's logits for texts."""

    def __init__(self, trained: Trained, options: Any):
        """Takes a classifier and the options of bert distill, which say how texts are read."""
        self._trained, self._options = trained, options
        vocabulary = training_notes.Vocabulary.of(trained.files.vocab_file or "")
        training_notes.check_vocabulary(trained.checkpoint, vocabulary)
        self._reader = distillation.reader(trained.files, options)
        self._session: Optional[InferenceSession] = None

    def logits(self, examples: Sequence[Example], directory: str) -> tuple[np.ndarray, str]:
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

    def _compute(self, examples: Sequence[Example]) -> np.ndarray:
        if self._session is None:
            config, problem = self._trained.files.config, self._trained.problem
            with arguments_named(max_seq_length="--max_seq_length"):
                self._session = InferenceSession(
                    self._trained.files,
                    self._trained.checkpoint,
                    lambda _: classifier_network.network(config, problem),
                    "logits",
                    self._options.max_seq_length,
                    num_threads=self._options.num_threads,
                )
        windows = [self._reader.encode(each.text_a, each.text_b) for each in examples]
        owners = np.repeat(np.arange(len(examples)), [len(of_one) for of_one in windows])
        outputs = self._session.run_encoded(
            [window for of_one in windows for window in of_one], self._options.predict_batch_size
        )
        of_examples = EncodedSplit("", examples, owners).of_examples(np.array(outputs))
        return of_examples.astype(np.float32)

    def _fingerprint(self, examples: Sequence[Example]) -> str:
        """Returns a digest of the model, how it reads, and the texts."""
        model, options = self._trained.files, self._options
        hashed = hashlib.sha256(model.config.to_json_string().encode())
        for name, value in sorted(checkpoint_files.read(self._trained.checkpoint).items()):
            hashed.update(name.encode() + np.ascontiguousarray(value).tobytes())
        tokens = training_notes.Vocabulary.of(model.vocab_file or "").digest
        how = [options.max_seq_length, options.truncate, options.doc_stride, options.augment > 0]
        hashed.update(json.dumps([tokens, model.rules.to_dict(), how]).encode())
        for example in examples:
            hashed.update(repr(example[1:3]).encode())
        return hashed.hexdigest()[:16]

    def close(self) -> None:
        """Frees what the model holds."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _write(path: str, values: np.ndarray) -> None:
    with files.replacing([path]) as [name], files.open_binary(name, "wb") as writer:
        np.save(writer, values)
