"""The package behind the commands; each module holds one idea and can be imported alone.

Importing this package imports neither TensorFlow nor any of the modules below it; the
classes of bert_toolkit/inference/ that it offers do so when they are first used.
"""

from typing import Any

__version__ = "0.1.0"
# Class -> its module below bert_toolkit.
_MODULES = {
    "Client": "serving.client",
    "Encoder": "inference.encoder",
    "Explainer": "inference.explainer",
    "FillMask": "inference.fill_mask",
    "NextSentence": "inference.scorer",
    "QuestionAnswerer": "inference.question_answerer",
    "Scorer": "inference.scorer",
    "TextClassifier": "inference.text_classifier",
    "TokenClassifier": "inference.token_classifier",
}
__all__ = [
    "Client",
    "Encoder",
    "Explainer",
    "FillMask",
    "NextSentence",
    "QuestionAnswerer",
    "Scorer",
    "TextClassifier",
    "TokenClassifier",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = f"bert_toolkit.{_MODULES[name]}"
    if module.startswith("bert_toolkit.serving."):  # no TensorFlow in it
        return getattr(importlib.import_module(module), name)

    from bert_toolkit import tensorflow_start
    from tokenization import garbage_collection_paused

    tensorflow_start.prepare()

    with garbage_collection_paused():  # it would go through all of TensorFlow again and again
        return getattr(importlib.import_module(module), name)
