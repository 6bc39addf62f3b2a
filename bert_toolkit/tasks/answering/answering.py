"""Question answering as a task: SQuAD 1.1 and 2.0, and sets like them."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
from absl import logging

from bert_toolkit.checkpoints import task_file
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.io import files
from bert_toolkit.io.tfrecord import Schema
from bert_toolkit.problems import ANSWERING, Problem
from bert_toolkit.tasks import start
from bert_toolkit.tasks.answering import answer_scores, question_data, span_network
from bert_toolkit.tasks.answering.answers import NEGATIVE, THRESHOLD, Answers, Settings, text_of
from bert_toolkit.tasks.answering.question_data import Question
from bert_toolkit.tasks.answering.spans import NBest, QuestionEncoder, best_spans
from bert_toolkit.tasks.bad_rows import BadRows, check_left
from bert_toolkit.tasks.base import EncodedSplit, Examples, Outputs
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.training.outputs import Head, Network
from modeling import BertConfig
from tokenization import FullTokenizer


def load(options: Any, settings: Settings) -> Examples:
    """Reads the questions that are needed; `options` are those of run_squad.py.

    Raises:
      UserError: a file cannot be read, or has questions that cannot be used.
    """
    train, dev, test = options.actions()
    bad = BadRows(options.on_bad_row == "skip")
    with_negative = settings.with_negative

    def read(path: Optional[str], answered: bool = True) -> list[Question]:
        return question_data.read(path or "", question_data.Layout(answered, with_negative), bad)

    wants_dev = options.eval_file and (dev or options.evaluate_every)
    examples = Examples(
        read(options.train_file) if train else None,
        {"": read(options.eval_file)} if wants_dev else {},
        {"": read(options.predict_file, answered=False)} if test else {},
    )
    bad.finish(options.output_dir)
    check_left(options, "question", examples.train, examples.dev.get(""), examples.test.get(""))
    return examples


class Answering:
    """Questions on texts, in the sense of tasks/base.py; what it answers are `Answers`."""

    labels: tuple[str, ...] = ()

    def __init__(
        self, examples: Examples, options: Any, settings: Settings, tokenizer: FullTokenizer
    ):
        """Takes what is needed; `options` are those of run_squad.py, `examples` Questions."""
        self.examples, self.options, self.settings = examples, options, settings
        self.max_seq_length, self.directory = options.max_seq_length, options.output_dir
        self.train_source = options.train_file or ""
        # Evaluation does not depend on the threshold that an earlier one has chosen.
        self._judged = self.settings._replace(threshold=options.null_score_diff_threshold)
        self.metric = "best_f1" if self.settings.with_negative else "f1"
        self._encoder = QuestionEncoder(
            tokenizer, options.max_seq_length, options.max_query_length, options.doc_stride
        )
        measures = {
            answer_scores.WORDS: answer_scores.by_words,
            answer_scores.CHARACTERS: answer_scores.by_characters,
        }
        self._measure = measures[options.f1_unit]

    def schema(self) -> Schema:
        return span_network.schema(self.max_seq_length)

    def encode(self, example: Question) -> list[tuple[Encoded, dict[str, Any]]]:
        found = []
        windows = self._encoder.windows(example.text, example.context)
        for number, window in enumerate(windows):
            first, last = self._encoder.positions(example, window)
            features = {"start_positions": [first], "end_positions": [last], "window": [number]}
            found.append((window.encoded, features))
        is_cut = example.answers and not any(features["end_positions"][0] for _, features in found)
        if is_cut and self.options.verbose_logging:
            logging.info("%s: no window holds its answer as a whole", example.place)
        return found

    def copies(self) -> None:
        return None

    def facts(self) -> Iterator[Any]:
        assert self.examples.train is not None
        return (question[:4] for question in self.examples.train)

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        return span_network.network(config, compute)

    def head(self, config: BertConfig) -> Head:
        return span_network.head()

    def decode(self, outputs: Outputs, split: EncodedSplit) -> Answers:
        options, loss, record = self.options, 0.0, 0
        nbest = NBest(len(split.examples), options.n_best_size)
        for batch in outputs:
            loss += float(batch["loss"].sum())
            for logits, window in zip(batch["logits"], batch["window"]):
                number = split.owners[record]
                question: Question = split.examples[number]
                place = self._encoder.places(question.text, question.context)[window]
                offsets = self._encoder.tokens(question.context).offsets
                spans = best_spans(
                    logits, place, offsets, options.n_best_size, options.max_answer_length
                )
                nbest.add(number, question.context, spans, logits[0])
                record += 1
        return Answers(nbest, loss / max(1, record))

    # --- Evaluation ---

    def score(self, answers: Answers, split: EncodedSplit) -> dict[str, Any]:
        found = self._score(answers, split, self._judged)
        return {
            **{f"eval_{name}": value for name, value in found.items()},
            "eval_loss": answers.loss,
        }

    def _score(self, answers: Answers, split: EncodedSplit, settings: Settings) -> dict[str, Any]:
        questions: Any = split.examples
        odds = answers.all_null_odds()
        has_answer = np.array([bool(question.answers) for question in questions])
        best = [text_of(answers.nbest.best(n), q.context) for n, q in enumerate(questions)]
        if_answered = np.array(
            [self._compare(text, q) for text, q in zip(best, questions)]
        )  # [N, 2]
        if_not = np.array([self._compare("", question) for question in questions])
        is_answered = np.array([settings.is_answered(value) for value in odds])
        exact, f1 = np.where(is_answered[:, None], if_answered, if_not).T
        found = answer_scores.summary(exact, f1, has_answer, settings.with_negative)
        if settings.with_negative:
            there = np.array([bool(text) for text in best])
            for name, scores in (("exact", if_answered[:, 0]), ("f1", if_answered[:, 1])):
                value, threshold = answer_scores.best_threshold(scores, odds, has_answer, there)
                nothing = float(odds.min()) - 1.0
                found[f"best_{name}"] = value
                found[f"best_{name}_thresh"] = nothing if threshold is None else threshold
        return found

    def _compare(self, text: str, question: Question) -> tuple[float, float]:
        return answer_scores.best_of(self._measure, text, [true.text for true in question.answers])

    def write_evaluation(self, suffix: str, answers: Answers, split: EncodedSplit) -> None:
        """Writes the answers; of version 2, finds the threshold that suits the dev data best."""
        self._write("eval_", answers, split, self._judged)
        if self.settings.with_negative and self.options.null_score_diff_threshold is None:
            self._choose_threshold(answers, split)

    def _choose_threshold(self, answers: Answers, split: EncodedSplit) -> None:
        """Keeps the best threshold beside a model that was just trained, or that has none yet."""
        found = self._score(answers, split, self._judged)
        threshold = answer_scores.with_margin(found["best_f1_thresh"], answers.all_null_odds())
        directories = [self.directory, os.path.join(self.directory, start.BEST)]
        own = [one for one in directories if files.exists(os.path.join(one, task_file.NAME))]
        keeps = self.options.actions()[0] or THRESHOLD not in task_file.settings(own)
        if own and keeps:
            self.settings = self.settings._replace(threshold=threshold)
            for directory in own:
                self.store(directory)
        logging.info(
            "null threshold %.4f gives F1 %.2f on the dev data; %s",
            threshold,
            found["best_f1"],
            "kept for predicting"
            if own and keeps
            else f"pass it to use it, as --null_score_diff_threshold={threshold:.4f}",
        )

    def store(self, directory: str) -> None:
        kept: dict[str, Any] = {NEGATIVE: self.settings.with_negative}
        if self.settings.threshold is not None:
            kept[THRESHOLD] = self.settings.threshold
        task_file.write(directory, Problem(ANSWERING), self.metric, kept)

    # --- Prediction ---

    def write_predictions(self, suffix: str, answers: Answers, split: EncodedSplit) -> None:
        """Writes predictions.json, nbest_predictions.json and null_odds.json, or prints lines."""
        if self.options.predict_file == files.STREAM:
            for number, question in enumerate(split.examples):
                print(_json(self._row(answers, number, question)))
            sys.stdout.flush()
            return
        self._write("", answers, split, self.settings)

    def _row(self, answers: Answers, number: int, question: Question) -> dict[str, Any]:
        given = answers.given(number, question.context, self.settings)
        row = {"id": question.id, "answer": given.text, "probability": given.probability}
        if given.span:
            row.update(start=given.span.begin, end=given.span.end)
        return (
            {**row, "null_odds": answers.null_odds(number)} if self.settings.with_negative else row
        )

    def _write(
        self, prefix: str, answers: Answers, split: EncodedSplit, settings: Settings
    ) -> None:
        """Writes a line for each question to each file, so that few are in memory at a time."""
        names = ["predictions.json", "nbest_predictions.json"]
        names += ["null_odds.json"] if self.settings.with_negative else []
        paths = [os.path.join(self.directory, prefix + name) for name in names]
        with files.replacing(paths) as unfinished:
            for name, path in zip(names, unfinished):
                with files.open_binary(path, "wb") as writer:
                    lines = self._lines(name, answers, split, settings)
                    writer.write(b"{")
                    for number, line in enumerate(lines):
                        writer.write((",\n    " if number else "\n    ").encode() + line.encode())
                    writer.write(b"\n}\n")
        logging.info("%s questions answered: %s", f"{len(split.examples):,}", " and ".join(paths))

    def _lines(
        self, name: str, answers: Answers, split: EncodedSplit, settings: Settings
    ) -> Iterator[str]:
        for number, question in enumerate(split.examples):
            value: Any = answers.null_odds(number)
            if name == "predictions.json":
                value = text_of(answers.span(number, settings), question.context)
            elif name == "nbest_predictions.json":
                value = answers.n_best(number, question.context, settings)
            yield f"{_json(question.id)}: {_json(value)}"


def settings_of(options: Any) -> Settings:
    """Returns how answers are given: as the flags say, else as kept beside the model."""
    directories = start.model_dirs(options)
    if options.actions()[0]:  # what --bert_dir was trained for before says nothing
        directories = [] if options.overwrite else directories[:2]
    kept = Settings.of(task_file.settings(directories))
    with_negative, threshold = options.version_2_with_negative, options.null_score_diff_threshold
    found = Settings(
        kept.with_negative if with_negative is None else with_negative,
        kept.threshold if threshold is None else threshold,
    )
    if threshold is not None and not found.with_negative:
        logging.warning(
            "--null_score_diff_threshold=%g says nothing without --version_2_with_negative",
            threshold,
        )
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
