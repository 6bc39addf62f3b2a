"""A stage's tokenizer: its rules, from the flags and from the file beside the vocabulary."""

import dataclasses
import json
import os
from typing import Optional

from absl import logging

from bert_toolkit import files
from bert_toolkit.cli import RuleOptions
from bert_toolkit.errors import UserError
from tokenization import FullTokenizer, vocabulary_problems

RULES_FILE = "tokenizer_config.json"


@dataclasses.dataclass(frozen=True)
class Rules:
    """How text is cut, as the arguments of FullTokenizer and the keys of tokenizer_config.json."""

    do_lower_case: bool = True
    strip_accents: Optional[bool] = None
    tokenize_chinese_chars: bool = True
    never_split: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Returns the text of a tokenizer_config.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def rules(options: RuleOptions, vocab_file: Optional[str]) -> Rules:
    """Returns what the flags say, else what lies beside the vocabulary, else the defaults.

    Raises:
      UserError: flags and file contradict each other, or the file is damaged.
    """
    beside = _rules_beside(vocab_file) if vocab_file else {}
    chosen = {}
    for field in dataclasses.fields(Rules):
        given, said = getattr(options, field.name), beside.get(field.name)
        given = tuple(given) if isinstance(given, (list, tuple)) else given
        if given is not None and said is not None and given != said:
            raise UserError(
                f"--{field.name}={given}, but the {RULES_FILE} beside {vocab_file} says"
                f" {json.dumps(said)}; leave the flag out, or use that model's own vocabulary"
            )
        if given is None:
            given = said
        if given is not None:
            chosen[field.name] = given
    return Rules(**chosen)


def rules_from(note: dict, default: Rules) -> Rules:
    """Returns the rules that a data set's note tells, else the default."""
    names = [field.name for field in dataclasses.fields(Rules)]
    return dataclasses.replace(default, **_usable({n: note[n] for n in names if n in note}))


def _usable(values: dict) -> dict:
    """As JSON gave it, with what is fixed made fixed and what is null left out."""
    values = {name: value for name, value in values.items() if value is not None}
    if "never_split" in values:
        values["never_split"] = tuple(values["never_split"])
    return values


def _rules_beside(vocab_file: str) -> dict:
    path = os.path.join(os.path.dirname(vocab_file), RULES_FILE)
    if not files.exists(path):
        return {}
    try:
        return _usable(dict(json.loads(files.read_text(path))))
    except (ValueError, TypeError):
        raise UserError(f"{path}: not a JSON object; mend or remove it") from None


def load(vocab_file: str, rules: Rules) -> FullTokenizer:
    """Loads a tokenizer, and warns of what is odd about its vocabulary.

    Raises:
      UserError: the vocabulary cannot be used.
    """
    files.check_input(vocab_file, "vocab_file")
    tokenizer = FullTokenizer(vocab_file, **dataclasses.asdict(rules))
    for problem in vocabulary_problems(vocab_file):
        logging.warning("%s", problem)
    return tokenizer
