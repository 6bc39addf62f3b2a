"""The package behind the commands; each module holds one idea and can be imported alone.

Importing this package imports neither TensorFlow nor any of the modules below it; `Encoder`,
`TextClassifier` and `TokenClassifier` (see bert_toolkit/inference/) do so when they are first used.
"""

from typing import Any

__version__ = "0.1.0"
_MODULES = {
    "Encoder": "encoder",
    "TextClassifier": "text_classifier",
    "TokenClassifier": "token_classifier",
}
__all__ = ["Encoder", "TextClassifier", "TokenClassifier"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from bert_toolkit import tensorflow_start
    from tokenization import garbage_collection_paused

    tensorflow_start.prepare()

    with garbage_collection_paused():  # it would go through all of TensorFlow again and again
        return getattr(importlib.import_module(f"bert_toolkit.inference.{_MODULES[name]}"), name)
