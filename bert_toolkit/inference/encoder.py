"""Models from Python: one graph and session for many calls, texts in and arrays out.

    from bert_toolkit import Encoder, TextClassifier

    vectors = Encoder("out/pretrained", pooling="mean").encode(["a text", "another"])
    labels = TextClassifier("out/reviews").predict(["a text", ("one of", "a pair")])

The results are those of extract_features.py and run_classifier.py. Objects may be used by several
threads at once.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, TypeVar, Union

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.checkpoints import model_directory, restore, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors
from bert_toolkit.features.layers import parse_layers
from bert_toolkit.options import ModelOptions
from bert_toolkit.text import encoding, tokenizer_rules
from bert_toolkit.training.estimator_api import PREDICT
from bert_toolkit.training.outputs import Network
from tokenization import FullTokenizer, garbage_collection_paused

Text = Union[str, tuple[str, str]]
Model = TypeVar("Model", bound="TextModel")


@contextlib.contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Lets errors name arguments where they name flags: bert_dir=x, not --bert_dir=x.

    `names` are those of arguments that are not called as the flag is, by the flag's name.
    """
    try:
        yield
    except UserError as error:
        flag = re.compile(r"(?<![\w-])--([a-z_]+)")
        text = flag.sub(lambda match: names.get(match[1], match[1]), str(error))
        raise UserError(text) from error.__cause__


class InferenceSession:
    """A network with its weights in a session of its own."""

    def __init__(
        self,
        files: model_directory.ModelFiles,
        checkpoint: str,
        make_network: Callable[[modeling.BertConfig], Network],
        output: str,
        max_seq_length: Optional[int],
    ):
        """Builds the network; `output` is the prediction that `run` returns."""
        positions = files.config.max_position_embeddings
        self.max_seq_length = positions if max_seq_length is None else max_seq_length
        model_directory.check_length(self.max_seq_length, files)
        self.tokenizer = files.tokenizer()
        self._encoder = encoding.SequenceEncoder(self.tokenizer, self.max_seq_length)
        vocabulary = training_notes.Vocabulary.of(files.vocab_file or "")
        training_notes.check_vocabulary(checkpoint, vocabulary)
        with garbage_collection_paused(), tf.Graph().as_default() as graph:
            names = ("input_ids", "input_mask", "segment_ids")
            self._inputs = {name: tf.placeholder(tf.int32, [None, None], name) for name in names}
            network = make_network(files.config)
            outputs = network(self._inputs, PREDICT)
            self._output = outputs.predictions[output]
            config = tf.ConfigProto(allow_soft_placement=True)
            config.gpu_options.allow_growth = True
            self._session = tf.Session(graph=graph, config=config)
            restore.load(self._session, checkpoint)

    def run(self, texts: Sequence[Text], batch_size: int) -> np.ndarray:
        """Returns the output for each text, [texts, ...], in their order."""
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, not one text")
        encoded = [self._encode(text) for text in texts]
        tokenizer_rules.warn_of_unknown("texts", *encoding.count_unknown(self.tokenizer, encoded))
        found = self.run_encoded(encoded, batch_size)
        size = self._output.shape[-1]
        return np.array(found) if found else np.zeros((0, size or 0), np.float32)

    def run_encoded(self, encoded: Sequence[encoding.Encoded], batch_size: int) -> list[np.ndarray]:
        """Returns the output for each sequence, in their order; of [S, ...] ones with padding."""
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number].input_ids))
        found: list[Any] = [None] * len(encoded)
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            values = self._session.run(self._output, self._feed([encoded[n] for n in numbers]))
            for number, value in zip(numbers, values):
                found[number] = value
        return found

    def _encode(self, text: Text) -> encoding.Encoded:
        first, second = (text, None) if isinstance(text, str) else text
        [encoded] = self._encoder.encode(first, second)
        return encoded

    def _feed(self, batch: Sequence[encoding.Encoded]) -> dict[tf.Tensor, np.ndarray]:
        longest = max(len(encoded.input_ids) for encoded in batch)
        ids, mask, segments = (np.zeros((len(batch), longest), np.int32) for _ in range(3))
        for row, encoded in enumerate(batch):
            length = len(encoded.input_ids)
            ids[row, :length], mask[row, :length] = encoded.input_ids, 1
            segments[row, :length] = encoded.segment_ids
        return dict(zip(self._inputs.values(), (ids, mask, segments)))

    def close(self) -> None:
        """Frees what the session holds."""
        self._session.close()


class TextModel:
    """What all models here have; also a context manager, which closes them."""

    _model: InferenceSession

    @property
    def tokenizer(self) -> FullTokenizer:
        """The model's own."""
        return self._model.tokenizer

    @property
    def max_seq_length(self) -> int:
        """The longest sequence that it reads, in tokens."""
        return self._model.max_seq_length

    def close(self) -> None:
        """Frees what the model holds."""
        self._model.close()

    def __enter__(self: Model) -> Model:
        return self

    def __exit__(self, *error) -> None:
        self.close()


class Encoder(TextModel):
    """Vectors of texts."""

    def __init__(
        self,
        bert_dir: str,
        layers: Sequence[int] = (-1,),
        combine: str = "concat",
        pooling: str = "mean",
        normalize: bool = False,
        max_seq_length: Optional[int] = None,
        init_checkpoint: Optional[str] = None,
    ):
        """Loads a model directory; other arguments mean what those flags of extract_features.py do.

        Raises:
          UserError: a file is missing or does not fit, or an argument is unknown.
        """
        made_of = vectors.Vectors(combine, pooling, normalize)
        made_of.check()
        with arguments_named():
            options = ModelOptions(bert_dir=bert_dir, init_checkpoint=init_checkpoint)
            files = model_directory.find(options)
            assert files.init_checkpoint
            numbers = parse_layers(",".join(map(str, layers)), files.config.num_hidden_layers)
            self._model = InferenceSession(
                files,
                files.init_checkpoint,
                lambda config: vectors.network(config, numbers, vectors=made_of),
                "vector",
                max_seq_length,
            )

    def encode(self, texts: Sequence[Text], batch_size: int = 32) -> np.ndarray:
        """Returns float32 [texts, size]; a text is a string or a pair of them."""
        return self._model.run(texts, batch_size)
