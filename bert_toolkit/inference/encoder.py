"""Models from Python: one graph and session for many calls, texts in and arrays out.

    from bert_toolkit import Encoder, TextClassifier

    vectors = Encoder("out/pretrained", pooling="mean").encode(["a text", "another"])
    labels = TextClassifier("out/reviews").predict(["a text", ("one of", "a pair")])

The results are those of extract_features.py and run_classifier.py. Objects may be used by several
threads at once.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, TypeVar, Union

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.checkpoints import model_directory, restore, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors
from bert_toolkit.features.layers import Layer, parse_layers
from bert_toolkit.options import BATCH_TOKENS, ModelOptions
from bert_toolkit.results import Attention
from bert_toolkit.text import batches, encoding, tokenizer_rules
from bert_toolkit.training.estimator_api import PREDICT
from bert_toolkit.training.outputs import Network
from tokenization import FullTokenizer, garbage_collection_paused

Text = Union[str, tuple[str, str]]
# A batch: the numbers of each input, by its name, of each sequence.
Rows = Sequence[Mapping[str, Sequence[int]]]
Model = TypeVar("Model", bound="TextModel")


@contextlib.contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Lets errors name arguments where they name flags: bert_dir=x, not --bert_dir=x.

    `names` are those of arguments that are not called as the flag is, by the flag's name, or by
    the name that an inner block has given it.
    """
    try:
        yield
    except UserError as error:
        flag = re.compile(r"(?<![\w-])(?:--([a-z_]+)|([a-z_]+)(?==))")

        def named(match: re.Match) -> str:
            name = match[1] or match[2]
            return names.get(name, name)

        text = flag.sub(named, str(error))
        raise UserError(text) from error.__cause__


SEQUENCE = ("input_ids", "input_mask", "segment_ids")


def features(encoded: encoding.Encoded) -> dict[str, list[int]]:
    """Returns the inputs that every network has for a sequence."""
    return {
        "input_ids": encoded.input_ids,
        "input_mask": [1] * len(encoded.input_ids),
        "segment_ids": encoded.segment_ids,
    }


class InferenceSession:
    """A network with its weights in a session of its own.

    Attributes:
      tokenizer: of the model.
      encoder: makes its sequences of texts.
      max_seq_length: of these, in tokens.
    """

    def __init__(
        self,
        files: model_directory.ModelFiles,
        checkpoint: str,
        make_network: Callable[[modeling.BertConfig], Network],
        output: str,
        max_seq_length: Optional[int],
        more_inputs: Sequence[str] = (),
        if_untrained: str = restore.ANOTHER_CHECKPOINT,
        num_threads: int = 0,
    ):
        """Builds the network.

        Args:
          files: of the model.
          checkpoint: its weights.
          make_network: from its config to the network.
          output: the prediction that `run` returns.
          max_seq_length: longest sequence; None for as many tokens as the model has positions.
          more_inputs: features of the network beside those of a sequence, int32 [B, ...].
          if_untrained: what to do where the checkpoint lacks a part of the network.
          num_threads: on the CPU, of a process's first session; 0 for one a core.
        """
        positions = files.config.max_position_embeddings
        self.max_seq_length = positions if max_seq_length is None else max_seq_length
        model_directory.check_length(self.max_seq_length, files)
        self.tokenizer = files.tokenizer()
        self.encoder = encoding.SequenceEncoder(self.tokenizer, self.max_seq_length)
        self._config = files.config
        self._attention: Optional[tf.Tensor] = None
        self._attention_lock = threading.Lock()
        vocabulary = training_notes.Vocabulary.of(files.vocab_file or "")
        training_notes.check_vocabulary(checkpoint, vocabulary)
        with garbage_collection_paused(), tf.Graph().as_default() as graph:
            names = (*SEQUENCE, *more_inputs)
            self._inputs = {name: tf.placeholder(tf.int32, [None, None], name) for name in names}
            network = make_network(files.config)
            outputs = network(self._inputs, PREDICT)
            self._predictions = outputs.predictions
            self._output = outputs.predictions[output]
            config = tf.ConfigProto(
                allow_soft_placement=True,
                intra_op_parallelism_threads=num_threads,
                inter_op_parallelism_threads=num_threads,
            )
            config.gpu_options.allow_growth = True
            self._session = tf.Session(graph=graph, config=config)
            restore.load(self._session, checkpoint, if_untrained)

    def run(self, texts: Sequence[Text], batch_size: Optional[int]) -> np.ndarray:
        """Returns the output for each text, [texts, ...], in their order."""
        encoded = self.encode(texts)
        tokenizer_rules.warn_of_unknown("texts", *encoding.count_unknown(self.tokenizer, encoded))
        found = self.run_encoded(encoded, batch_size)
        size = self._output.shape[-1]
        return np.array(found) if found else np.zeros((0, size or 0), np.float32)

    def encode(self, texts: Sequence[Text]) -> list[encoding.Encoded]:
        """Returns the sequences of texts, cut to fit."""
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, not one text")
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        return [encoded for pair in pairs for encoded in self.encoder.encode(*pair)]

    def run_encoded(
        self,
        encoded: Sequence[encoding.Encoded],
        batch_size: Optional[int],
        batch_tokens: int = 0,
    ) -> list[np.ndarray]:
        """Returns the output for each sequence, in their order; of [S, ...] ones with padding.

        Args:
          encoded: the sequences.
          batch_size: sequences in a batch; None for as many as hold 4,096 tokens, with padding.
          batch_tokens: a batch has more of them while they have no more tokens than this.
        """
        if batch_size is None:
            batch_size, batch_tokens = 1, BATCH_TOKENS
        found: list[Any] = [None] * len(encoded)
        lengths = [len(one.input_ids) for one in encoded]
        for numbers in batches.by_length(lengths, batch_size, batch_tokens):
            values = self.run_batch([features(encoded[number]) for number in numbers])
            for number, value in zip(numbers, values):
                found[number] = value
        return found

    def run_batch(self, rows: Rows) -> np.ndarray:
        """Returns the output for a batch of sequences, [B, ...]."""
        return self._session.run(self._output, self._feed(rows))

    def fetch(self, outputs: Sequence[str], rows: Rows, **fed: Any) -> list[np.ndarray]:
        """Returns several predictions for a batch; others of them may be fed, by name."""
        feed = self._feed(rows)
        feed.update({self._predictions[name]: value for name, value in fed.items()})
        return self._session.run([self._predictions[name] for name in outputs], feed)

    @property
    def has_attention(self) -> bool:
        """Whether the network has attention weights."""
        return self._config.network_type == modeling.BERT

    def attention(self, texts: Sequence[Text], batch_size: int) -> list[Attention]:
        """Returns the attention weights of every layer and head for each text, in their order."""
        encoded = self.encode(texts)
        found: list[Any] = [None] * len(encoded)
        lengths = [len(one.input_ids) for one in encoded]
        for numbers in batches.by_length(lengths, batch_size, 0):
            feed = self._feed([features(encoded[number]) for number in numbers])
            values = self._session.run(self._attention_output(), feed)  # [B, S, L, N, S]
            for number, value in zip(numbers, values):
                ids, segments, _ = encoded[number]
                weights = np.moveaxis(value[: len(ids), ..., : len(ids)], 0, 2)
                tokens = self.tokenizer.convert_ids_to_tokens(ids)
                found[number] = Attention(tokens, segments, weights)
        return found

    def _attention_output(self) -> tf.Tensor:
        """Returns the weights of every layer: the encoder a second time, of the same variables.

        It is built when it is first asked for, as few are.
        """
        with self._attention_lock:
            if self._attention is None:
                layers = range(self._config.num_hidden_layers)
                network = vectors.attention_network(self._config, layers)
                with self._session.graph.as_default():
                    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
                        inputs = {name: self._inputs[name] for name in SEQUENCE}
                        self._attention = network(inputs, PREDICT).predictions["attention"]
            return self._attention

    def _feed(self, rows: Rows) -> dict[tf.Tensor, np.ndarray]:
        """Returns the inputs of a batch; shorter sequences are padded with zeros."""
        return {self._inputs[name]: batches.padded([row[name] for row in rows]) for name in rows[0]}

    def weight(self, name: str) -> np.ndarray:
        """Returns a weight by its published name."""
        with self._session.graph.as_default():
            [variable] = [one for one in tf.trainable_variables() if one.op.name == name]
        return self._session.run(variable)

    def size(self) -> int:
        """Returns the bytes of the weights."""
        with self._session.graph.as_default():
            weights = tf.trainable_variables()
        return sum(one.shape.num_elements() * one.dtype.size for one in weights)

    def close(self) -> None:
        """Frees what the session holds."""
        self._session.close()


class TextModel:
    """What all models here have; also a context manager, which closes them."""

    _model: InferenceSession

    @classmethod
    def from_options(
        cls: type[Model], options: ModelOptions, max_seq_length: Optional[int] = None
    ) -> Model:
        """Loads the model that a command's flags name; errors name flags."""
        model = cls.__new__(cls)
        model._load(options, max_seq_length)
        return model

    def _load(self, options: ModelOptions, max_seq_length: Optional[int]) -> None:
        """Sets what the model has; of classes that commands load by flags."""
        raise NotImplementedError

    @property
    def tokenizer(self) -> FullTokenizer:
        """The model's own."""
        return self._model.tokenizer

    @property
    def max_seq_length(self) -> int:
        """The longest sequence that it reads, in tokens."""
        return self._model.max_seq_length

    @property
    def size(self) -> int:
        """The bytes of its weights."""
        return self._model.size()

    @property
    def has_attention(self) -> bool:
        """Whether it has attention weights; a BiLSTM has none."""
        return self._model.has_attention

    def attention(self, texts: Sequence[Text], batch_size: int = 32) -> list[Attention]:
        """Returns what each token of each text takes in of every other; texts are cut to fit."""
        return self._model.attention(texts, batch_size)

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
        layers: Sequence[Layer] = (-1,),
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

    def encode(self, texts: Sequence[Text], batch_size: Optional[int] = None) -> np.ndarray:
        """Returns float32 [texts, size]; a text is a string or a pair of them.

        Without `batch_size`, a batch has as many texts of about one length as hold 4,096 tokens.
        """
        return self._model.run(texts, batch_size)
