"""The command line of a stage: flags from its options, --help, one-sentence errors, exit codes.

A stage calls `run(run, Options, __doc__)`; no flag is defined when a module is imported.
"""

import atexit
import gc
import logging as python_logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Optional, TypeVar

from absl import flags, logging

from bert_toolkit import tensorflow_start
from bert_toolkit.errors import UserError
from bert_toolkit.options import Option, groups_of, options_of

Options = TypeVar("Options")

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
EXIT_TERMINATED = 143  # and by SIGTERM


def run(command: Callable[[Any], Any], options_class: type, doc: Optional[str]) -> NoReturn:
    """Parses the command line, calls `command` with the options that it gives, and exits.

    A UserError is printed as "error: ..." on stderr with exit code 1, a wrong flag with 2, Ctrl-C
    with 130. --debug adds the traceback; any other exception is a bug of ours and keeps its own.

    Args:
      command: takes an object of `options_class`.
      options_class: declares the options (see options.py), from which flags are made.
      doc: the command's docstring, printed at the top of --help.
    """
    # TensorFlow's modules and graphs are a million objects that stay; going through them again and
    # again for cycles takes a fifth of the time to start.
    gc.set_threshold(100_000, 20, 20)
    groups = _define_all(options_class)
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        _parse(sys.argv, doc or "", groups, _positional(options_class))
        _quiet_logs()
        command(_options_from_flags(options_class))
        sys.stdout.flush()
    except UserError as error:
        _tell(error)
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != EXIT_TERMINATED:
            raise
        hint = f" ({stop})" if isinstance(stop, KeyboardInterrupt) and str(stop) else ""
        print(f"stopped before the end{hint}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_TERMINATED)
    except BrokenPipeError:
        # The reader of our standard output went away (`| head`): that is no error worth words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    _end()


def _end() -> NoReturn:
    """Ends the program with success, at once if TensorFlow is in it, which takes a second to go."""
    if "tensorflow" in sys.modules:
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(0)
    sys.exit(0)


def _raise_terminated(signum, frame):
    """Ends by an exception, so that unfinished files are removed on the way out."""
    sys.exit(EXIT_TERMINATED)


def _tell(error: UserError) -> None:
    if flags.FLAGS.debug:
        traceback.print_exc()
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)


def _options_from_flags(options_class: type[Options]) -> Options:
    """Fills a dataclass of options from the flags of the same names."""
    values = {name: flags.FLAGS[name].value for name in options_of(options_class)}
    return options_class(**{name: value for name, value in values.items() if value is not None})


# --- Flags from options, and help ---

_DEFINE: dict[type, Callable] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    list: flags.DEFINE_list,
}


def _define_all(options_class: Any) -> dict[str, list[str]]:
    """Defines the flags of a command; returns their names by the titles of their groups."""
    groups = {
        title: [_define(one) for one in options]
        for title, options in groups_of(options_class).items()
    }
    flags.DEFINE_boolean("debug", False, "Show tracebacks, and TensorFlow's own log.")
    groups["Running"] = ["debug"]
    for name in (name for names in groups.values() for name in names):
        flags.FLAGS.register_key_flag_for_module("__main__", flags.FLAGS[name])
    return groups


def _define(one: Option) -> str:
    """Defines the flag of an option, and of its earlier name; returns its name."""
    declared, bounds = one.declared, {}
    if one.type in (int, float):
        bounds = {"lower_bound": declared.lower, "upper_bound": declared.upper}
    default = None if declared.required else one.default
    if declared.choices:
        flags.DEFINE_enum(one.name, default, list(declared.choices), declared.help)
    elif declared.repeated:
        flags.DEFINE_multi_string(one.name, default, declared.help)
        flags.FLAGS[one.name].help = declared.help  # absl adds to it
    else:
        _DEFINE[one.type](one.name, default, declared.help, **bounds)
        if one.type is float:  # whatever the bounds, nan is not beyond them
            flags.register_validator(
                one.name, lambda value: value is None or value == value, "expected a number"
            )
    if declared.required:
        flags.mark_flag_as_required(one.name)
    if declared.alias:
        flags.DEFINE_alias(declared.alias, one.name)
    return one.name


def _positional(options_class: Any) -> Optional[str]:
    """Returns the name of the option that arguments without a flag are; None if none is."""
    names = [one.name for one in options_of(options_class).values() if one.declared.positional]
    return names[0] if names else None


def _parse(
    argv: list[str], doc: str, groups: Mapping[str, list[str]], positional: Optional[str]
) -> None:
    if {"--help", "-help", "-h", "--helpshort", "--helpfull"} & set(argv[1:]):
        print(_help(doc, groups), flush=True)
        sys.exit(0)
    flags.FLAGS.set_gnu_getopt(positional is not None)
    try:
        stray = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        _usage_error(_plain_flag_error(str(error)))
    if stray and positional:
        flags.FLAGS[positional].value = [*(flags.FLAGS[positional].value or []), *stray]
    elif stray:
        previous = argv[argv.index(stray[0]) - 1].lstrip("-")
        boolean = previous in flags.FLAGS and flags.FLAGS[previous].boolean
        hint = (
            f"write --{previous}={stray[0]}" if boolean else "every option is written --name=value"
        )
        _usage_error(f"unexpected argument {stray[0]!r}; {hint}")


def _usage_error(message: str) -> NoReturn:
    print(f"error: {message}\nTry --help.", file=sys.stderr)
    sys.exit(EXIT_USAGE)


# What absl says of a flag's value, and what was expected in plain words.
_FLAG_ERRORS = (
    (r"invalid literal for int", "a whole number"),
    (r"could not convert", "a number"),
    (r"\('Non-boolean argument", "true or false"),
    (r"\S+ is not (?:an? )?(.+)", "{}"),
)


def _plain_flag_error(message: str) -> str:
    missing = re.findall(r"Flag --(\w+) must have a value other than None", message)
    if missing:
        return f"--{missing[0]} is required"
    for pattern, expected in _FLAG_ERRORS:
        match = re.match(r"flag (--\w+=.*?): " + pattern, message)
        if match:
            return f"{match.group(1)}: expected {expected.format(*match.groups()[1:])}"
    return re.sub(r"^flag (?=--)", "", message.replace("\n", " "))


def _help(doc: str, groups: Mapping[str, list[str]]) -> str:
    """The stage's docstring, then its flags by group in order of definition."""
    lines = [doc.strip(), ""]
    for title, names in groups.items():
        lines += [f"{title}:"]
        for name in names:
            flag = flags.FLAGS[name]
            default = "" if flag.default is None else f" (default: {flag.default})"
            spelling = f"--[no]{name}" if flag.boolean else f"--{name}=..."
            text = " ".join(f"{flag.help}{default}".split())
            lines += [f"  {spelling}", f"      {text}"]
        lines += [""]
    return "\n".join(lines)


def _quiet_logs() -> None:
    """Plain log lines of ours on stderr; TensorFlow's own only with --debug."""
    debug = flags.FLAGS.debug
    tensorflow_start.prepare(quiet=not debug)
    if flags.FLAGS["verbosity"].present == 0:
        logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    if not debug:
        # Its warnings are about functions that TensorFlow itself calls, its notes about sessions
        # and graphs.
        python_logging.getLogger("tensorflow").setLevel(python_logging.ERROR)
        python_logging.getLogger("h5py").setLevel(python_logging.INFO)  # with --verbosity=1, too
        warnings.filterwarnings("ignore", module="tensorflow")
        logging.get_absl_handler().setFormatter(_PlainFormatter())


class _PlainFormatter(python_logging.Formatter):
    """Our own lines as they are, warnings marked as such."""

    def format(self, record) -> str:
        prefix = "warning: " if record.levelno == python_logging.WARNING else ""
        return prefix + record.getMessage()
