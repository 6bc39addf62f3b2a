"""The sentences of a run: read, their tags checked and brought into one scheme, divided."""

import collections
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from absl import logging

from bert_toolkit.checkpoints import hugging_face, task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.problems import TAGGING, Problem
from bert_toolkit.tasks.bad_rows import BadRows, check_left
from bert_toolkit.tasks.tagging import formats, schemes
from bert_toolkit.tasks.tagging.formats import Layout, Sentence, TagFile
from tokenization import FullTokenizer

# The file that Hugging Face's datasets have beside their rows, with the names of tags.
DATASET_INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class Model:
    """What a tagger predicts.

    Attributes:
      problem: with the tags, in the order of their ids.
      scheme: of the tags.
      crf: whether they are scored together.
    """

    problem: Problem
    scheme: str
    crf: bool

    @property
    def crf_scheme(self) -> Optional[str]:
        """The scheme whose rules the CRF keeps; None without one."""
        return self.scheme if self.crf else None

    def settings(self) -> dict[str, Any]:
        """Returns what is noted beside the model, and read by `known_model`."""
        return {"scheme": self.scheme, "crf": self.crf}


@dataclasses.dataclass(frozen=True)
class Data:
    """The sentences that a run needs, tags in the model's scheme; None for what is not needed."""

    model: Model
    train: Optional[list[Sentence]]
    dev: Optional[list[Sentence]]
    test: Optional[TagFile]


def known_model(directories: Sequence[str]) -> Optional[Model]:
    """Returns what the trained tagger in the first directory that has one predicts.

    Raises:
      UserError: the model there is for another task.
    """
    problem = task_file.read(directories, [TAGGING])
    if problem is None:
        return None
    return model_of(problem, task_file.settings(directories))


def model_of(problem: Problem, settings: Mapping[str, Any]) -> Model:
    """Returns what a model predicts, from what is kept beside it."""
    scheme = settings.get("scheme") or schemes.of_labels(problem.labels)
    return Model(problem, scheme, bool(settings.get("crf")))


def load(
    options: Any,
    wanted: Any,
    tokenizer: FullTokenizer,
    model_dirs: Sequence[str],
    model: Optional[Model] = None,
) -> Data:
    """Reads the files that are needed.

    Args:
      options: those of run_token_classifier.py.
      wanted: Actions, of which evaluation may be for choosing the best model.
      tokenizer: finds the words of plain text.
      model_dirs: where a model may lie that was trained before.
      model: what is to be predicted; None for what the data has, or a model of `model_dirs`.

    Raises:
      UserError: a file cannot be used, or has sentences that cannot.
    """
    bad = BadRows(options.on_bad_row == "skip")

    def read(path: str, tagged: bool, format: Optional[str] = None) -> TagFile:
        format = format or formats.format_of(path, predicts=not tagged)
        layout = Layout(options.word_column, options.tag_column, tagged, format)
        found = formats.read(path, layout, tokenizer, bad)
        return _checked(found, _names(path, options, found), bad) if tagged else found

    splits = bool(options.eval_split and options.train_file)
    if wanted.evaluate and not options.eval_file and not splits:
        raise UserError("nothing to evaluate on: pass --eval_file, or --eval_split=0.1")
    # Rows to evaluate on are not trained on, whether or not that is done now.
    divides = splits and not options.eval_file and (wanted.train or wanted.evaluate)
    train = read(options.train_file, True) if wanted.train or divides else None
    dev = read(options.eval_file, True) if wanted.evaluate and options.eval_file else None
    test = read(options.predict_file, False, options.predict_format) if wanted.predict else None
    if not bad.skip:
        bad.finish(options.output_dir)
    if model is None:
        model = _model(options, train if wanted.train else None, model_dirs)
    train_rows = _in_scheme(train, model, bad) if train else None
    dev_rows = _in_scheme(dev, model, bad) if dev else None
    bad.finish(options.output_dir)
    check_left(options, "sentence", train_rows, dev_rows, test.sentences if test else None)
    if divides:
        assert train_rows
        seed = options.seed if options.split_seed is None else options.split_seed
        train_rows, dev_rows = _divided(train_rows, options.eval_split, seed)
    return Data(
        model,
        train_rows if wanted.train else None,
        dev_rows if wanted.evaluate else None,
        test,
    )


# --- Tags as files have them ---


def _names(path: str, options: Any, found: TagFile) -> Sequence[str]:
    """Returns the names of tags that are numbers, in order; nothing if none is.

    Raises:
      UserError: they are not known.
    """
    if not any(isinstance(tag, int) for one in found.sentences for tag in one.tags or ()):
        return ()
    if options.labels:
        return tuple(options.labels)
    beside = os.path.join(os.path.dirname(path), DATASET_INFO)
    advice = f"pass them in order: --labels=O,B-PER,..., or put the {DATASET_INFO} beside it"
    if not files.exists(beside):
        raise UserError(f"{path}: its tags are numbers, whose names are not known; {advice}")
    try:
        features = json.loads(files.read_text(beside))["features"]
        column = next(features[name] for name in reversed(formats.TAGS) if name in features)
        feature = column.get("feature", column) if isinstance(column, dict) else column[0]
        return tuple(map(str, feature["names"]))
    except (ValueError, KeyError, TypeError, IndexError, StopIteration):
        raise UserError(f"{beside}: no names of tags under features in it; {advice}") from None


def _checked(found: TagFile, names: Sequence[str], bad: BadRows) -> TagFile:
    """Returns a file without the sentences that have what is no tag; tells the scheme."""
    sentences = []
    for sentence in found.sentences:
        tags = []
        for place, tag in enumerate(sentence.tags or ()):
            name = names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag
            if not isinstance(name, str) or not schemes.is_tag(name):
                bad.add(found.name, _place(sentence, place), _no_tag(name, names))
                break
            tags.append(schemes.spelled(name))
        else:
            sentences.append(sentence._replace(tags=tuple(tags)))
    return found._replace(sentences=sentences)


def _place(sentence: Sentence, word: int) -> str:
    """Returns the line of a word: in columns each has one."""
    in_columns = isinstance(sentence.source, list)
    return f"line {sentence.line + word}" if in_columns else f"line {sentence.line}"


def _no_tag(tag: Any, names: Sequence[str]) -> str:
    if isinstance(tag, int) and names:
        return f"tag {tag}; expected a number from 0 to {len(names) - 1}, as there are names"
    if isinstance(tag, str) and tag[1:2] != "-":
        return (
            f"tag {tables.shorten(tag)} has no prefix; expected O, or B- or I- and a type, B-PER"
            " say"
        )
    return f"tag {tables.shorten(tag)}; expected O, or B-, I-, E- or S- and a type, B-PER say"


# --- The model's tags ---


def _model(options: Any, train: Optional[TagFile], directories: Sequence[str]) -> Model:
    """Returns what is to be predicted: known to a model, or seen in the data."""
    if train is None:
        known = known_model(directories)
        if known is None:
            raise UserError(
                "the tags are not known: --output_dir holds no model trained by this program, and"
                " --bert_dir no tagger; pass --train_file to train one"
            )
        return named(known, options.labels)
    scheme = options.scheme
    tags = {tag for sentence in train.sentences for tag in sentence.tags or ()}
    types = sorted({schemes.split(tag)[1] for tag in tags - {schemes.OUTSIDE}})
    if not types:
        raise UserError(
            f"{train.name}: every word has the tag O; expected entities, such as B-PER; is"
            " --tag_column right?"
        )
    labels = schemes.labels(types, scheme)
    if options.labels:
        tags_given = {schemes.spelled(tag): None for tag in options.labels}
        given = {schemes.split(tag)[1]: None for tag in tags_given if tag != schemes.OUTSIDE}
        labels = schemes.labels(given, scheme)
        labels = tuple(tags_given) if sorted(tags_given) == sorted(labels) else labels
    return Model(Problem(TAGGING, labels), scheme, options.crf)


def named(known: Model, labels: Optional[Sequence[str]]) -> Model:
    """Returns a model whose labels have no names with those of --labels; others as they are."""
    problem = known.problem
    nameless = all(map(hugging_face.UNNAMED.fullmatch, problem.labels))
    if labels and nameless and len(labels) == len(problem.labels):
        return dataclasses.replace(
            known, problem=dataclasses.replace(problem, labels=tuple(labels))
        )
    return known


def _in_scheme(found: TagFile, model: Model, bad: BadRows) -> list[Sentence]:
    """Returns the sentences with tags in the scheme of the model; says what it makes of them."""
    sentences, changed = [], 0
    known = set(model.problem.labels)
    for sentence in found.sentences:
        assert sentence.tags is not None
        tags = tuple(schemes.convert(sentence.tags, model.scheme))
        strange = next((place for place, tag in enumerate(tags) if tag not in known), None)
        if strange is not None:
            expected = tables.listing(model.problem.labels)
            why = f"tag {sentence.tags[strange]}; expected one of {expected}"
            bad.add(found.name, _place(sentence, strange), why)
            continue
        changed += tags != sentence.tags
        sentences.append(sentence._replace(tags=tags))
    scheme = schemes.detect(sentence.tags or () for sentence in found.sentences)
    if scheme is None:
        logging.warning(
            "%s: its tags keep the rules of none of %s; read as entities all the same",
            found.name,
            ", ".join(schemes.PREFIXES),
        )
    converted = f", converted to {model.scheme}" if changed else ""
    logging.info("%s: %s%s; %s", found.name, scheme or "mixed tags", converted, count(sentences))
    return sentences


def count(sentences: Sequence[Sentence]) -> str:
    """Returns how many sentences, words and entities of each type there are, as text."""
    tags = [sentence.tags or () for sentence in sentences]
    types = collections.Counter(entity.type for one in tags for entity in schemes.entities(one))
    shown = ", ".join(f"{kind} {number:,}" for kind, number in types.most_common(12))
    return (
        f"{len(sentences):,} sentences, {sum(map(len, tags)):,} words, {sum(types.values()):,}"
        f" entities{': ' if shown else ''}{shown}"
    )


def _divided(
    sentences: list[Sentence], share: float, seed: int
) -> tuple[list[Sentence], list[Sentence]]:
    """Returns the sentences to train on and those to evaluate on."""
    from sklearn.model_selection import train_test_split

    if len(sentences) < 2:
        raise UserError(f"--eval_split={share}: one sentence, which cannot be divided")
    numbers = train_test_split(range(len(sentences)), test_size=share, random_state=seed)
    first, second = ([sentences[number] for number in sorted(part)] for part in numbers)
    logging.info("%s sentences to train on, %s to evaluate on", len(first), len(second))
    return first, second


def describe_overlap(train: Optional[list[Sentence]], dev: Optional[list[Sentence]]) -> None:
    """Says whether there are sentences to evaluate on that are trained on, too."""
    seen = {sentence.words for sentence in train or ()}
    shared = sum(sentence.words in seen for sentence in dev or ())
    if shared:
        logging.warning(
            "%d sentences to evaluate on are trained on too; metrics will be too good", shared
        )
