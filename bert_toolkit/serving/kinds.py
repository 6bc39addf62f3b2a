"""What a served model is asked and what it answers: one row of KINDS for each kind of model.

Another kind is another row: its request and reply, how it is loaded, and what it computes. Its own
names are in tensorflow_form.py, client.py and pages/serve.html, too. SEARCH and ATTEND are what
models answer beside that.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bert_toolkit import problems
from bert_toolkit.checkpoints import task_file
from bert_toolkit.inference.encoder import Encoder, TextModel
from bert_toolkit.inference.fill_mask import FillMask
from bert_toolkit.inference.question_answerer import QuestionAnswerer
from bert_toolkit.inference.text_classifier import TextClassifier
from bert_toolkit.inference.token_classifier import TokenClassifier
from bert_toolkit.serving.batching import Limits
from bert_toolkit.tasks import best_model

# Candidates for a [MASK] that are computed: a request may have the best of them.
MOST_CANDIDATES = 20
MOST_MASKS = 16  # of a text: every candidate has a copy of it
MOST_NEIGHBORS = 20
MOST_ATTENTION_TOKENS = 64  # of a request: a reply has a number for each pair of them, a head
ATTENTION_BATCH_TOKENS = 1024  # of several requests together, for the same reason
VectorFormat = Literal["float", "base64"]  # base64 is of float32, little-endian


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """How models are loaded; see the options of these names."""

    max_seq_length: Optional[int] = None
    pooling: str = "mean"
    normalize: bool = False

    def length(self) -> dict[str, Any]:
        """Returns the argument for it, if it is not each class's own."""
        return {} if self.max_seq_length is None else {"max_seq_length": self.max_seq_length}


def limits_of(kind: "Kind", limits: Limits) -> Limits:
    """Returns the limits of the batches of a kind."""
    if kind is not ATTEND:
        return limits
    tokens = min(limits.batch_tokens, ATTENTION_BATCH_TOKENS)
    return dataclasses.replace(limits, batch_tokens=tokens)


# --- Requests and replies, as JSON ---

Text = Union[str, tuple[str, str]]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextsRequest(_Request):
    """Texts; each a string, or a pair of them."""

    texts: list[Text] = Field(examples=[["I was never bored.", ["one of", "a pair"]]])


class EncodeRequest(TextsRequest):
    """Texts, and how to write their vectors."""

    encoding_format: VectorFormat = "float"


class FillRequest(_Request):
    """Texts with [MASK] in them, and how many candidates each [MASK] gets."""

    texts: list[Annotated[str, Field(pattern=r"\[MASK\]")]] = Field(
        examples=[["The train to [MASK] is late."]]
    )
    top_k: int = Field(5, ge=1, le=MOST_CANDIDATES)


class TagRequest(_Request):
    """Texts to find entities in."""

    texts: list[str] = Field(examples=[["The train to Norby is late."]])


class SearchRequest(TextsRequest):
    """Texts, and how many of the loaded lines to find for each."""

    top_k: int = Field(5, ge=1, le=MOST_NEIGHBORS)


class Question(_Request):
    """A question, and the text that may answer it."""

    question: str
    context: str


class AnswerRequest(_Request):
    """Questions."""

    questions: list[Question]


class EncodeReply(BaseModel):
    """A vector for each text, in order; in base64, the bytes of its float32, little-endian."""

    model: str
    vectors: list[Union[list[float], str]]


class PredictionReply(BaseModel):
    """See bert_toolkit.results.Prediction."""

    label: str
    probabilities: dict[str, float]


class ClassifyReply(BaseModel):
    """A prediction for each text, in order."""

    model: str
    predictions: list[PredictionReply]


class CandidateReply(BaseModel):
    """See bert_toolkit.results.Candidate."""

    word: str
    pieces: list[str]
    probability: float
    text: str


class FillReply(BaseModel):
    """The candidates for each [MASK] of each text, in order, the best first."""

    model: str
    masks: list[list[list[CandidateReply]]]


class EntityReply(BaseModel):
    """See bert_toolkit.results.Entity; `start` and `end` are characters (code points)."""

    text: str
    type: str
    start: int
    end: int
    score: float


class TagReply(BaseModel):
    """The entities of each text, in order."""

    model: str
    entities: list[list[EntityReply]]


class OneAnswerReply(BaseModel):
    """See bert_toolkit.results.Answer; `start` and `end` are characters (code points)."""

    text: str
    start: int
    end: int
    probability: float


class AnswerReply(BaseModel):
    """An answer for each question, in order."""

    model: str
    answers: list[OneAnswerReply]


class NeighborReply(BaseModel):
    """See bert_toolkit.results.Neighbor."""

    line: int
    text: str
    cosine: float


class SearchReply(BaseModel):
    """The nearest of the loaded lines for each text, in order, the best first."""

    model: str
    neighbors: list[list[NeighborReply]]


class OneAttentionReply(BaseModel):
    """See bert_toolkit.results.Attention: weights by layer, head, token, and what it takes in."""

    tokens: list[str]
    segments: list[int]
    weights: list[list[list[list[float]]]]


class AttendReply(BaseModel):
    """The attention weights of each text, in order."""

    model: str
    attention: list[OneAttentionReply]


# --- Kinds ---


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model, or what models answer beside what they are for.

    Attributes:
      verb: what it does; the end of its path.
      asked: the field of requests that has the items.
      answered: the field of replies that has their answers.
      request, reply: of the API.
      problems: the kinds of problems.Problem that it is for; none of one that is asked for by name.
      compute: (model, items, batch size) -> a result for each item.
      plain: a result -> what JSON has of it.
      cuts: whether longer items are cut, rather than read in windows.
      example: an item, to begin with.
      load: (directory, settings) -> a model; None of what models answer beside.
      most_tokens: of a request, if that is bounded.
    """

    verb: str
    asked: str
    answered: str
    request: type[BaseModel]
    reply: type[BaseModel]
    problems: Sequence[str]
    compute: Callable[[Any, Sequence[Any], int], Sequence[Any]]
    plain: Callable[[Any], Any]
    cuts: bool
    example: Any = ""
    load: Optional[Callable[[str, ModelSettings], Any]] = None
    most_tokens: Optional[int] = None

    def tokens(self, model: TextModel, item: Any) -> int:
        """Returns the length of an item in tokens, as the model reads it."""
        texts = (item,) if isinstance(item, str) else item
        length = sum(len(model.tokenizer.encode(text)) + 1 for text in texts) + 1
        return min(length, model.max_seq_length) if self.cuts else length


def _as_dict(result: Any) -> dict[str, Any]:
    return result._asdict()


def candidates(masks: Sequence[Sequence[Any]], top_k: int = 5) -> list[list[dict[str, Any]]]:
    """Returns the best candidates for each [MASK] of a text."""
    return [list(map(_as_dict, one[:top_k])) for one in masks]


def neighbors(found: Sequence[Any], top_k: int = 5) -> list[dict[str, Any]]:
    """Returns the nearest lines of a text."""
    return list(map(_as_dict, found[:top_k]))


def _attention(found: Any) -> dict[str, Any]:
    """Returns tokens and weights with six digits, as JSON has them: one array after the other."""
    weights = np.ascontiguousarray(np.round(found.weights, 6), np.float32)
    return {**found._asdict(), "weights": weights}


ENCODE = Kind(
    verb="encode",
    asked="texts",
    answered="vectors",
    request=EncodeRequest,
    reply=EncodeReply,
    problems=(),
    load=lambda directory, settings: Encoder(
        directory, pooling=settings.pooling, normalize=settings.normalize, **settings.length()
    ),
    compute=lambda model, texts, size: model.encode(texts, size),
    plain=lambda vector: vector,
    cuts=True,
)
CLASSIFY = Kind(
    verb="classify",
    asked="texts",
    answered="predictions",
    request=TextsRequest,
    reply=ClassifyReply,
    problems=problems.KINDS,
    load=lambda directory, settings: TextClassifier(directory, **settings.length()),
    compute=lambda model, texts, size: model.predict(texts, size),
    plain=_as_dict,
    cuts=True,
)
FILL = Kind(
    verb="fill",
    asked="texts",
    answered="masks",
    request=FillRequest,
    reply=FillReply,
    problems=(),
    load=lambda directory, settings: FillMask(directory, **settings.length()),
    compute=lambda model, texts, size: model.fill(
        texts, MOST_CANDIDATES, batch_size=size, names=["text"] * len(texts)
    ),
    plain=candidates,
    cuts=True,
    example="[MASK]",
)
TAG = Kind(
    verb="tag",
    asked="texts",
    answered="entities",
    request=TagRequest,
    reply=TagReply,
    problems=(problems.TAGGING,),
    load=lambda directory, settings: TokenClassifier(directory, **settings.length()),
    compute=lambda model, texts, size: model.tag(texts, size),
    plain=lambda entities: list(map(_as_dict, entities)),
    cuts=False,
)
ANSWER = Kind(
    verb="answer",
    asked="questions",
    answered="answers",
    request=AnswerRequest,
    reply=AnswerReply,
    problems=(problems.ANSWERING,),
    load=lambda directory, settings: QuestionAnswerer(directory, **settings.length()),
    compute=lambda model, questions, size: model.answer_all(questions, size),
    plain=_as_dict,
    cuts=False,
    example=("", ""),
)
KINDS = (ENCODE, CLASSIFY, FILL, TAG, ANSWER)

SEARCH = Kind(
    verb="search",
    asked="texts",
    answered="neighbors",
    request=SearchRequest,
    reply=SearchReply,
    problems=(),
    compute=lambda lines, texts, size: lines.nearest(texts, MOST_NEIGHBORS, size),
    plain=neighbors,
    cuts=True,
)
ATTEND = Kind(
    verb="attend",
    asked="texts",
    answered="attention",
    request=TextsRequest,
    reply=AttendReply,
    problems=(),
    compute=lambda model, texts, size: model.attention(texts, size),
    plain=_attention,
    cuts=False,
    most_tokens=MOST_ATTENTION_TOKENS,
)
BESIDE = (SEARCH, ATTEND)  # the first of models of vectors, with lines; the second of all


def kind_of(directory: str) -> Kind:
    """Returns what the model of a directory does: what it was fine-tuned for, else vectors."""
    problem = task_file.read([directory, os.path.join(directory, best_model.BEST)])
    for kind in KINDS:
        if problem and problem.kind in kind.problems:
            return kind
    return ENCODE
