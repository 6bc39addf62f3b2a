"""Options of the commands, each declared once: type, default, help, bounds.

A command's options are a frozen dataclass whose fields are made by `option`. Flags, --help, the
checks of single values and docs/flags.md are made from it (cli.py). Options are pure: making one
looks at no file and at no environment.

    @dataclasses.dataclass(frozen=True)
    class Options(ModelOptions):
        max_seq_length: int = option(128, "Longest sequence in tokens.", lower=4)

        GROUPS = {"Model": (ModelOptions, "max_seq_length")}
"""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

from bert_toolkit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What is said of an option beside its type and its default.

    Attributes:
      help: its effect, its unit, what it has to match.
      lower: the least value, of numbers.
      upper: the greatest value, of numbers.
      choices: the values there are; any if empty.
      required: whether the command line must have it.
      alias: a name of earlier versions, which still works.
    """

    help: str
    lower: Optional[float] = None
    upper: Optional[float] = None
    choices: tuple[str, ...] = ()
    required: bool = False
    alias: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a class of options.

    Attributes:
      name: of the field and of the flag.
      type: bool, int, float, str, or list for several texts separated by commas.
      default: where it is not given.
      declared: all else.
    """

    name: str
    type: type
    default: Any
    declared: Declaration


def option(
    default: Any,
    help: str,
    *,
    lower: Optional[float] = None,
    upper: Optional[float] = None,
    choices: Sequence[str] = (),
    required: bool = False,
    alias: Optional[str] = None,
) -> Any:
    """Returns a dataclass field that is an option of a command; see Declaration."""
    declared = Declaration(help, lower, upper, tuple(choices), required, alias)
    return dataclasses.field(default=default, metadata={"declared": declared})


def options_of(options_class: type) -> dict[str, Option]:
    """Returns the options of a class by name, those of its bases included."""
    types = typing.get_type_hints(options_class)
    return {
        field.name: Option(
            field.name, _plain_type(types[field.name]), field.default, field.metadata["declared"]
        )
        for field in dataclasses.fields(options_class)
        if "declared" in field.metadata
    }


def groups_of(options_class: Any) -> dict[str, list[Option]]:
    """Returns the options by the title of their group, in the order of GROUPS.

    A class among the members of a group stands for the options that it declares itself.
    """
    options = options_of(options_class)
    groups = {
        title: [options[name] for member in members for name in _names(member) if name in options]
        for title, members in options_class.GROUPS.items()
    }
    grouped = {one.name for group in groups.values() for one in group}
    missing = sorted(options.keys() - grouped)
    assert not missing, f"{options_class}: GROUPS lacks {missing}"
    return groups


def _names(member: Union[str, type]) -> Iterator[str]:
    """Yields the name of an option, or the names that a class declares itself."""
    if isinstance(member, str):
        yield member
    else:
        yield from member.__annotations__


def _plain_type(annotation: Any) -> type:
    """Returns what a value is parsed as: Optional[int] is int, a sequence of texts is list."""
    if typing.get_origin(annotation) is Union:
        [annotation] = [part for part in typing.get_args(annotation) if part is not type(None)]
    return list if typing.get_origin(annotation) is not None else annotation


def check(conflicts: Sequence[str]) -> None:
    """Raises one UserError with all sentences, a line each, if there are any."""
    if conflicts:
        raise UserError("\n".join(conflicts))
