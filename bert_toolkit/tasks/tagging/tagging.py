"""Tagging as a task: entities in sentences, by a tag of every word."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit.checkpoints import task_file
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.io import files
from bert_toolkit.io.tfrecord import Field, Schema, along_sequence, sequence_fields
from bert_toolkit.tasks.base import EncodedSplit, Examples, Outputs
from bert_toolkit.tasks.tagging import crf, formats, network, schemes, scores
from bert_toolkit.tasks.tagging.answers import Decoder
from bert_toolkit.tasks.tagging.data import Data
from bert_toolkit.tasks.tagging.formats import Sentence
from bert_toolkit.tasks.tagging.words import WordEncoder, join
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.training.outputs import Head, Network
from modeling import BertConfig
from tokenization import FullTokenizer


class Answers(NamedTuple):
    """What a checkpoint says of a split.

    Attributes:
      outputs: float32 [T, L] for each sentence.
      decoder: turns them into tags.
    """

    outputs: list[np.ndarray]
    decoder: Decoder


def schema(max_seq_length: int) -> Schema:
    """Returns the features of the records: one of a window of a sentence."""
    fields = [
        *sequence_fields(max_seq_length),
        along_sequence("label_ids", max_seq_length),
        along_sequence(network.MASK, max_seq_length),
        Field(network.FIRST_WORD, 1, scalar=True),
        Field(network.HAS_LAST, 1, scalar=True),
        Field("is_real_example", 1, scalar=True, default=1),
    ]
    return Schema(tuple(fields))


class Tagging:
    """A data set to tag, in the sense of tasks/base.py."""

    metric = task_file.USUAL_METRIC["token_classification"]

    def __init__(self, data: Data, options: Any, tokenizer: FullTokenizer):
        """Takes what is needed; `options` are those of run_token_classifier.py."""
        self.data, self.options, self.model = data, options, data.model
        self.labels = data.model.problem.labels
        dev = {} if data.dev is None else {"": data.dev}
        test = {} if data.test is None else {"": data.test.sentences}
        self.examples = Examples(data.train, dev, test)
        self.max_seq_length = options.max_seq_length
        self.train_source = options.train_file or ""
        self.directory = options.output_dir
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self._encoder = WordEncoder(tokenizer, options.max_seq_length, options.doc_stride)

    def schema(self) -> Schema:
        return schema(self.max_seq_length)

    def encode(self, example: Sentence) -> list[tuple[Encoded, dict[str, Any]]]:
        ids = self._label_ids(example)
        encoded = []
        for part in self._encoder.encode(example.words):
            label_ids, mask = ([0] * len(part.encoded.input_ids) for _ in range(2))
            for number, place in enumerate(part.places, part.first_word):
                label_ids[place], mask[place] = int(ids[number]), 1
            own = {
                "label_ids": label_ids,
                network.MASK: mask,
                network.FIRST_WORD: [part.first_word],
                network.HAS_LAST: [int(part.first_word + len(part.places) == len(example.words))],
            }
            encoded.append((part.encoded, own))
        return encoded

    def _label_ids(self, sentence: Sentence) -> np.ndarray:
        tags = sentence.tags or [schemes.OUTSIDE] * len(sentence.words)
        return np.array([self._ids.get(tag, 0) for tag in tags], np.int64)

    def copies(self) -> Optional[Sequence[int]]:
        return None

    def facts(self) -> Iterator[Any]:
        assert self.data.train is not None
        return ((sentence.words, sentence.tags) for sentence in self.data.train)

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        return network.network(config, self.labels, self.model.crf_scheme, compute)

    def head(self, config: BertConfig) -> Head:
        return network.head(config, self.labels, self.model.crf_scheme)

    def decode(self, outputs: Outputs, split: EncodedSplit) -> Answers:
        parts: list[list[tuple[int, np.ndarray]]] = [[] for _ in split.examples]
        chain, number = None, 0
        for batch in outputs:
            for row, mask in enumerate(batch[network.MASK]):
                own = batch["logits"][row][mask == 1]
                parts[split.owners[number]].append((int(batch[network.FIRST_WORD][row]), own))
                number += 1
            if self.model.crf and chain is None and len(batch["transitions"]):
                rules = crf.Rules.of(self.labels, self.model.scheme)
                chain = crf.Chain(batch["transitions"][0], rules)
        joined = [
            join(own, len(sentence.words), len(self.labels))
            for own, sentence in zip(parts, split.examples)
        ]
        return Answers(joined, Decoder(self.labels, chain))

    def score(self, answers: Answers, split: EncodedSplit) -> dict[str, Any]:
        true, predicted = self._tags(answers, split)
        found = scores.entity_scores(true, predicted)
        strict = scores.entity_scores(true, predicted, self.model.scheme)
        losses = [
            answers.decoder.loss(outputs, self._label_ids(sentence))
            for outputs, sentence in zip(answers.outputs, split.examples)
        ]
        metrics = {
            "loss": sum(losses) / max(1, sum(map(len, true))),
            "accuracy": scores.accuracy(true, predicted),
            "f1_macro": found["macro"].f1,
        }
        for ending, score in (("", found["micro"]), ("_strict", strict["micro"])):
            metrics |= {
                f"precision{ending}": score.precision,
                f"recall{ending}": score.recall,
                f"f1{ending}": score.f1,
            }
        types = [name for name in found if name not in ("micro", "macro")]
        metrics |= {f"f1_of_{name}": found[name].f1 for name in types}
        return {f"eval_{name}": float(value) for name, value in metrics.items()}

    def _tags(
        self, answers: Answers, split: EncodedSplit
    ) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
        """Returns the true tags and the predicted ones."""
        true = [sentence.tags for sentence in split.examples]
        return true, [answers.decoder.tags(outputs) for outputs in answers.outputs]

    def store(self, directory: str) -> None:
        task_file.write(directory, self.model.problem, self.metric, self.model.settings())

    # --- What is written ---

    def write_evaluation(self, suffix: str, answers: Answers, split: EncodedSplit) -> None:
        """Writes the scores of each type, and the entities that are wrong."""
        true, predicted = self._tags(answers, split)
        report = scores.report(true, predicted, self.model.scheme)
        files.write_text(os.path.join(self.directory, f"eval_report{suffix}.txt"), report)
        lines = ["line\twhat\ttype\tentity\tsentence"]
        for sentence, one, other in zip(split.examples, true, predicted):
            there, found = set(schemes.entities(one)), set(schemes.entities(other))
            wrong = [("missed", entity) for entity in there - found]
            wrong += [("invented", entity) for entity in found - there]
            for what, (kind, begin, end) in sorted(wrong, key=lambda item: item[1][1:]):
                entity, text = " ".join(sentence.words[begin:end]), " ".join(sentence.words)
                cells = [str(sentence.line), what, kind, entity, text]
                lines.append("\t".join(" ".join(cell.split()) for cell in cells))
        path = os.path.join(self.directory, f"eval_errors{suffix}.tsv")
        files.write_text(path, "\n".join(lines) + "\n")

    def write_predictions(self, suffix: str, answers: Answers, split: EncodedSplit) -> None:
        """Writes the file to predict with tags in it; entities, a JSON object a line, of texts."""
        format = self.options.format_to_predict()
        assert self.data.test is not None
        if format == formats.TEXT:
            lines = self._entity_lines(answers)
        else:
            tags = [answers.decoder.tags(outputs) for outputs in answers.outputs]
            lines = formats.with_tags(self.data.test, tags, format)
        if self.options.predict_file == files.STREAM:
            sys.stdout.writelines(f"{line}\n" for line in lines)
            return
        ending = "conll" if format == formats.CONLL else "jsonl"
        path = os.path.join(self.directory, f"test_predictions{suffix}.{ending}")
        files.write_text(path, "".join(f"{line}\n" for line in lines))
        logging.info("%s sentences predicted: %s", f"{len(answers.outputs):,}", path)

    def _entity_lines(self, answers: Answers) -> Iterator[str]:
        assert self.data.test is not None
        for sentence, outputs in zip(self.data.test.sentences, answers.outputs):
            text = sentence.source
            found = answers.decoder.entities(outputs, sentence.words, text, sentence.offsets)
            entities = [{**entity._asdict(), "score": round(entity.score, 6)} for entity in found]
            yield json.dumps({"text": text, "entities": entities}, ensure_ascii=False)
