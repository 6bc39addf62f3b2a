"""Predictions in the form of TensorFlow Serving's REST API, as for models of `bert export`.

See https://www.tensorflow.org/tfx/serving/api_rest. Instances are texts, {"text": ...}, pairs
{"text_a": ..., "text_b": ...} or {"question": ..., "context": ...}.
"""

from collections.abc import Sequence
from typing import Any, Union

from pydantic import BaseModel, Field

from bert_toolkit import problems
from bert_toolkit.serving import kinds
from bert_toolkit.serving.models import ServedModel
from bert_toolkit.serving.refusals import RefusedError


class PredictRequest(BaseModel):
    """Rows to predict; the name of a signature changes nothing, as instances say what they are."""

    instances: list[Union[str, dict[str, str]]] = Field(examples=[["I was never bored."]])
    signature_name: str = ""


_PAIR, _QUESTION = ("text_a", "text_b"), ("question", "context")


def items(request: PredictRequest, model: ServedModel) -> list[Any]:
    """Returns what to ask the model."""
    answers, alone = model.kind is kinds.ANSWER, model.kind in (kinds.TAG, kinds.FILL)
    found: list[Any] = []
    for place, instance in enumerate(request.instances):
        keys = () if isinstance(instance, str) else tuple(sorted(instance))
        if isinstance(instance, str) and not answers:
            found.append(instance)
        elif keys == ("text",) and not answers:
            found.append(instance["text"])  # type: ignore[index]
        elif keys == tuple(sorted(_QUESTION)) and answers:
            found.append(tuple(instance[key] for key in _QUESTION))  # type: ignore[index]
        elif keys == _PAIR and not answers and not alone:
            found.append(tuple(instance[key] for key in _PAIR))  # type: ignore[index]
        else:
            expected = "question and context" if answers else "a text, or an object with text"
            expected += "" if answers or alone else " or with text_a and text_b"
            raise RefusedError(422, f"instances[{place}]: expected {expected}")
    return found


def reply(results: Sequence[Any], model: ServedModel) -> dict[str, Any]:
    """Returns a prediction for each instance.

    They are vectors, numbers, lists of entities, or objects; of a classifier with "label" and
    "probabilities", in the order of the model's labels, as from an exported one.
    """
    if model.kind is kinds.CLASSIFY:
        return {"predictions": [_prediction(one) for one in results]}
    return {"predictions": [model.kind.plain(one) for one in results]}


def _prediction(result: Any) -> Any:
    if not result.probabilities and problems.is_number(result.label):
        return float(result.label)
    return {"label": result.label, "probabilities": list(result.probabilities.values())}


def status(model: ServedModel) -> dict[str, Any]:
    """Returns what TensorFlow Serving says of a model that is there."""
    there = {"error_code": "OK", "error_message": ""}
    version = {"version": model.version, "state": "AVAILABLE", "status": there}
    return {"model_version_status": [version]}
