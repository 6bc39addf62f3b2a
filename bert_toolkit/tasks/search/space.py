"""The space of a search: which options are tried, with which values."""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.options import Option, spelled

# The grid of the BERT paper (Devlin et al., 2019, https://arxiv.org/abs/1810.04805, appendix A.3).
PAPERS_GRID = (
    "train_batch_size=16,32",
    "learning_rate=5e-5,3e-5,2e-5",
    "num_train_epochs=2,3,4",
)
EXAMPLES = "learning_rate=2e-5,5e-5 or learning_rate=1e-5..1e-4:log"
LOG = ":log"

# Option -> value: the setting of a trial.
Values = dict[str, Any]


class SettingError(UserError):
    """The values of a trial do not go together; those of others may."""


class Range(NamedTuple):
    """All numbers between two, both included; drawn evenly, or evenly in their logarithms."""

    low: float
    high: float
    is_log: bool


@dataclasses.dataclass(frozen=True)
class Dimension:
    """An option that is searched.

    Attributes:
      name: of the option.
      values: to try; empty where there is a range.
      range: to draw from.
    """

    name: str
    values: tuple[Any, ...] = ()
    range: Optional[Range] = None


def parse(texts: Sequence[str], options: Mapping[str, Option]) -> tuple[Dimension, ...]:
    """Returns the dimensions that texts such as "learning_rate=2e-5,5e-5" name.

    Args:
      texts: of --space, one a dimension: name=value,value or name=low..high or name=low..high:log.
      options: those that may be searched, by name.

    Raises:
      UserError: a text is no dimension, or a value is none of its option.
    """
    dimensions = tuple(_dimension(text.strip(), options) for text in texts)
    names = [dimension.name for dimension in dimensions]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--space={name}=...: given twice; put all values of it into one")
    return dimensions


def _dimension(text: str, options: Mapping[str, Option]) -> Dimension:
    name, equals, values = (part.strip() for part in text.removeprefix("--").partition("="))
    if not equals or not values:
        raise UserError(f"--space={text}: expected an option and its values: {EXAMPLES}")
    if name not in options:
        close = difflib.get_close_matches(name, options, 1)
        advice = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(options)}"
        raise UserError(
            f"--space={text}: {name} is no number or choice of how a model is made or trained;"
            f" {advice}"
        )
    if ".." in values:
        return Dimension(name, range=_range(text, values, options[name]))
    found = [_value(text, value.strip(), options[name]) for value in values.split(",")]
    return Dimension(name, tuple(dict.fromkeys(found)))


def _range(text: str, values: str, option: Option) -> Range:
    low, _, high = values.removesuffix(LOG).partition("..")
    if option.type not in (int, float):
        raise UserError(f"--space={text}: {option.name} is no number; list its values")
    first, last = (_value(text, end.strip(), option) for end in (low, high))
    is_log = values.endswith(LOG)
    if first >= last:
        raise UserError(f"--space={text}: expected the smaller number first: {EXAMPLES}")
    if is_log and first <= 0:
        raise UserError(f"--space={text}: expected numbers above 0 with :log")
    return Range(first, last, is_log)


_SPELLED = {"true": True, "false": False}


def _value(text: str, value: str, option: Option) -> Any:
    """Returns a value of an option from its text.

    Raises:
      UserError: it is none, or outside of the option's bounds.
    """
    declared = option.declared
    if option.type is bool:
        if value not in _SPELLED:
            raise UserError(f"--space={text}: {value!r}; expected true or false")
        return _SPELLED[value]
    if declared.choices:
        if value not in declared.choices:
            expected = ", ".join(declared.choices)
            raise UserError(f"--space={text}: {value!r}; expected some of {expected}")
        return value
    try:
        number = option.type(value)
    except ValueError:
        kind = "whole numbers" if option.type is int else "numbers"
        raise UserError(f"--space={text}: {value!r}; expected {kind}") from None
    lower, upper = declared.lower, declared.upper
    if (lower is not None and not number >= lower) or (upper is not None and not number <= upper):
        bounds = [f"at least {lower:g}"] if lower is not None else []
        bounds += [f"at most {upper:g}"] if upper is not None else []
        raise UserError(f"--space={text}: {value}; expected {' and '.join(bounds)}")
    if isinstance(number, float) and not math.isfinite(number):
        raise UserError(f"--space={text}: {value}; expected finite numbers")
    return number


def grid(dimensions: Sequence[Dimension]) -> Iterable[Values]:
    """Yields every combination of the listed values; the last dimension varies first."""
    names = [dimension.name for dimension in dimensions]
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        yield dict(zip(names, values))


def settings(values: Mapping[str, Any]) -> str:
    """Returns the setting of a trial in words."""
    return ", ".join(f"{name}={spelled(value)}" for name, value in values.items())
