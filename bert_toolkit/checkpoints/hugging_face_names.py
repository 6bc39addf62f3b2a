"""Names of weights: the published ones, and Hugging Face's for the same."""

import re
from typing import Optional

# What the last part of a name is in each; the first pair whose ending fits is taken.
_ENDINGS = (  # published, Hugging Face's
    ("LayerNorm/gamma", "LayerNorm.weight"),
    ("LayerNorm/beta", "LayerNorm.bias"),
    ("_embeddings", "_embeddings.weight"),
    ("cls/predictions/output_bias", "cls.predictions.bias"),
    ("seq_relationship/output_weights", "seq_relationship.weight"),
    ("seq_relationship/output_bias", "seq_relationship.bias"),
    ("cls/squad/output_weights", "qa_outputs.weight"),
    ("cls/squad/output_bias", "qa_outputs.bias"),
    ("output_weights", "classifier.weight"),
    ("output_bias", "classifier.bias"),
    ("/kernel", ".weight"),
)

# Copies of the word embeddings and the output bias, and a constant.
_COPIES = re.compile(r"cls\.predictions\.decoder\.|embeddings\.position_ids$")


def to_published(name: str) -> Optional[str]:
    """Returns the published name of one of Hugging Face's weights; None for copies and constants.

    For example bert.encoder.layer.0.attention.self.query.weight, or the same without "bert.", is
    bert/encoder/layer_0/attention/self/query/kernel.
    """
    if _COPIES.search(name):
        return None
    name = name.removeprefix("bert.")
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    for published, theirs in _ENDINGS:
        if name.endswith(theirs):
            name = name.removesuffix(theirs) + published
            break
    return re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", name).replace(".", "/")


def to_hugging_face(name: str) -> str:
    """Returns Hugging Face's name of a weight; inverts `to_published`."""
    for published, theirs in _ENDINGS:
        if name.endswith(published):
            name = name.removesuffix(published) + theirs
            break
    return re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")
