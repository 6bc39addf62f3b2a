"""Joins all commands under one name: `bert classify ...`, `python -m bert_toolkit classify ...`."""

import difflib
import importlib
import sys
from typing import NoReturn

# Subcommand -> module with an `entry`; its docstring's first line says what it does.
COMMANDS = {
    "create-data": "create_pretraining_data",
    "pretrain": "run_pretraining",
    "classify": "run_classifier",
    "answer": "run_squad",
    "tag": "run_token_classifier",
    "features": "extract_features",
    "check": "bert_toolkit.commands.check_learning",
    "fill-mask": "bert_toolkit.commands.fill_mask",
    "score": "bert_toolkit.commands.score",
    "attention": "bert_toolkit.commands.attention",
    "explain": "bert_toolkit.commands.explain",
    "distill": "bert_toolkit.commands.distill",
    "distill-tagger": "bert_toolkit.commands.distill_tagger",
    "search": "bert_toolkit.commands.search",
    "find-lr": "bert_toolkit.commands.find_lr",
    "multitask": "bert_toolkit.commands.multitask",
    "baselines": "bert_toolkit.commands.baselines",
    "compare": "bert_toolkit.commands.compare",
    "report": "bert_toolkit.commands.report",
    "review-data": "bert_toolkit.commands.review_data",
    "build-vocab": "bert_toolkit.commands.build_vocab",
    "extend-vocab": "bert_toolkit.commands.extend_vocab",
    "inspect": "bert_toolkit.commands.inspect_records",
    "convert": "bert_toolkit.commands.convert_checkpoint",
    "export": "bert_toolkit.commands.export_model",
    "serve": "bert_toolkit.commands.serve",
}


def main() -> NoReturn:
    """Runs the subcommand named on the command line with the arguments after it."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_help())
        sys.exit(0)
    if name == "--version":
        from bert_toolkit import __version__

        print(f"bert-toolkit {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(
            f"error: {name!r}: no such command. Known: {', '.join(COMMANDS)}.{hint}\n"
            "Try bert --help.",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"bert {name}", *arguments]
    importlib.import_module(COMMANDS[name]).entry()
    sys.exit(0)


def _help() -> str:
    lines = ["BERT from the command line.", "", "Usage: bert COMMAND --name=value ...", ""]
    for name, module in COMMANDS.items():
        first_line = (importlib.import_module(module).__doc__ or "").splitlines()[0]
        lines.append(f"  {name:<16}{first_line}")
    return "\n".join([*lines, "", "bert COMMAND --help lists the options of a command."])


if __name__ == "__main__":
    main()
