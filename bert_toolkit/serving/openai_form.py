"""Embeddings in the form that OpenAI's clients send and read.

See https://platform.openai.com/docs/api-reference/embeddings.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
from pydantic import BaseModel, Field

from bert_toolkit.serving.kinds import VectorFormat
from bert_toolkit.serving.models import ServedModel
from bert_toolkit.serving.refusals import RefusedError


class EmbeddingsRequest(BaseModel):
    """What `client.embeddings.create` sends; fields that are not here change nothing."""

    input: Union[str, list[str], list[int], list[list[int]]] = Field(
        examples=["I was never bored."]
    )
    model: str
    encoding_format: VectorFormat = "float"
    dimensions: Optional[int] = None

    def texts(self) -> list[str]:
        """Returns the texts; refuses token ids, which are of another vocabulary."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [one for one in self.input if isinstance(one, str)]
        if len(texts) < len(self.input):
            raise RefusedError(
                422,
                "input: token ids; expected texts, as this model has a vocabulary of its own"
                " (LangChain: check_embedding_ctx_length=False)",
            )
        return texts

    def check_size(self, size: int) -> None:
        """Refuses if vectors of another size are asked for than the model has."""
        if self.dimensions not in (None, size):
            raise RefusedError(
                422,
                f"dimensions: {self.dimensions}; this model's vectors have {size}; leave it out",
            )


def vector(values: np.ndarray, encoding_format: VectorFormat) -> Any:
    """Returns a vector, float32 [D], as JSON has it."""
    if encoding_format == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return values


def reply(
    model: str, vectors: Sequence[np.ndarray], encoding_format: VectorFormat, tokens: int
) -> dict[str, Any]:
    """Returns what clients read."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector(values, encoding_format)}
        for index, values in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def described(model: ServedModel) -> dict[str, Any]:
    """Returns what the list of models has of one: OpenAI's fields, and ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.loaded,
        "owned_by": "bert-toolkit",
        "does": model.kind.verb,
        "labels": model.labels,
        "max_seq_length": model.max_seq_length,
        "version": model.version,
        "also": [kind.verb for kind in model.kinds[1:]],
        "lines": model.line_count,
    }


def listed(models: Mapping[str, ServedModel]) -> dict[str, Any]:
    """Returns the list of models."""
    return {"object": "list", "data": [described(model) for model in models.values()]}
