"""Fills the templates beside this module: one HTML file with its style, script and data in it."""

import html
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

STYLE = "style.css"  # what all pages have


def fill(template: str, values: Mapping[str, str]) -> str:
    """Returns a page: the template with each {{name}} in it replaced, and the common style.

    Args:
      template: file name of one of those beside this module.
      values: name -> HTML, as `text` and `data` make it.
    """
    page = _read(template)
    for name, value in {"style": _read(STYLE), **values}.items():
        assert f"{{{{{name}}}}}" in page, f"{template} has no {name}"
        page = page.replace(f"{{{{{name}}}}}", value)
    return page


def text(value: str) -> str:
    """Returns HTML that shows a text as it is."""
    return html.escape(value)


def data(value: Any) -> str:
    """Returns JSON for a <script> element, which nothing in it can end."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
