"""Writes docs/flags.md from the options that the commands declare: python docs/make_flags.py."""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

INTRODUCTION = """# Flags

Made from the commands' own declarations by `python docs/make_flags.py`; each command says the same
with `--help`. A flag is written `--name=value`; `--name` and `--noname` for those that are true or
false. All flags of the published scripts keep their names, meanings and defaults.
"""


def page() -> str:
    """Returns the whole page."""
    from bert_toolkit.__main__ import COMMANDS

    parts = [INTRODUCTION]
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        first_line = (module.__doc__ or "").splitlines()[0]
        script = "" if "." in module_name else f", `{module_name}.py`"
        parts.append(f"## bert {name}{script}\n\n{first_line}\n")
        parts += _tables(module.Options)
    return "\n".join(parts)


def _tables(options_class) -> list[str]:
    """Returns a table for each group of options."""
    from bert_toolkit.options import groups_of

    tables = []
    for title, options in groups_of(options_class).items():
        rows = [f"### {title}\n", "| flag | default | effect |", "|---|---|---|"]
        for one in options:
            choices = " \\| ".join(f"`{choice}`" for choice in one.declared.choices)
            effect = " ".join(one.declared.help.split()).replace("|", "\\|")
            effect += f" One of {choices}." if choices else ""
            rows.append(f"| `--{one.name}` | {_default(one)} | {effect} |")
        tables.append("\n".join(rows) + "\n")
    return tables


def _default(one) -> str:
    if one.declared.required:
        return "required"
    if one.default in (None, ""):
        return ""
    value = str(one.default).lower() if one.type is bool else one.default
    return f"`{value}`"


if __name__ == "__main__":
    (HERE / "flags.md").write_text(page(), encoding="utf-8")
