"""The BERT encoder and its two pretraining heads (Devlin et al., 2019, https://arxiv.org/abs/1810.04805).

Shapes in comments: B batch, S sequence length, H hidden size, N attention heads, D size of a head
(H / N), I intermediate size, V vocabulary size, T rows of tokens (B * S), P masked positions.

Every variable has the name it has in the published checkpoints; scopes below spell those names.
"""

import copy
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.errors import UserError

# Added to attention scores of padding before the softmax, which makes its weight zero in float32.
MASKED_SCORE = -10000.0

# The networks that a config may describe, by its model_type: this encoder, and one that classifies
# only (bert_toolkit/tasks/classification/bilstm.py).
BERT, BILSTM = "bert", "bilstm"


class BertConfig:
    """The sizes and settings of a BERT model.

    Keys that this class does not know are kept as attributes and written out again, so that the
    config.json of a Hugging Face model can be read, and stays what it was.
    """

    SIZES = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    )

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 16,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        **other: Any,
    ):
        """Takes the settings by their names in the published JSON files, with BERT-base's defaults.

        Args:
          vocab_size: entries of the vocabulary, V.
          hidden_size: width of the encoder, H.
          num_hidden_layers: layers of the encoder.
          num_attention_heads: attention heads of a layer, N; divides `hidden_size`.
          intermediate_size: width of the feed-forward part of a layer, I.
          hidden_act: its activation, by name: see `get_activation`.
          hidden_dropout_prob: dropout of embeddings and of the output of every part of a layer.
          attention_probs_dropout_prob: dropout of the attention weights.
          max_position_embeddings: the longest sequence the model can read.
          type_vocab_size: number of segment ids.
          initializer_range: standard deviation of new weights.
          layer_norm_eps: added to the variance in layer normalization.
          **other: kept as they are.
        """
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.__dict__.update(other)

    @classmethod
    def from_dict(cls, json_object: Mapping[str, Any]) -> "BertConfig":
        """Makes a config from a dict; a UserError if vocab_size is missing."""
        if "vocab_size" not in json_object:
            raise UserError(
                "BERT config: no vocab_size among its keys; expected the number of vocabulary"
                " entries"
            )
        return cls(**json_object)

    @classmethod
    def from_json_file(cls, json_file: str) -> "BertConfig":
        """Reads bert_config.json, or Hugging Face's config.json.

        Raises:
          UserError: the file is missing, is not such a JSON file, lacks a size of the model, or
            describes a model that this encoder cannot be.
        """
        try:
            # As bytes, of which json tells the encoding: a byte-order mark is no error.
            with tf.io.gfile.GFile(json_file, "rb") as reader:
                values = json.loads(reader.read())
        except tf.errors.OpError as error:
            raise UserError(
                f"{json_file}: cannot be read ({error.message}); expected a JSON file"
            ) from None
        except ValueError as error:
            raise UserError(
                f"{json_file}: not JSON ({error}); expected the model's bert_config.json"
            ) from None
        if not isinstance(values, dict):
            raise UserError(
                f"{json_file}: a JSON {type(values).__name__}; expected an object of model settings"
            )
        missing = [name for name in cls.SIZES if name not in values]
        if missing:
            raise UserError(
                f"{json_file}: no {', '.join(missing)}; expected the model's own config with all"
                " its sizes"
            )
        config = cls.from_dict(values)
        problems = config.problems()
        if problems:
            raise UserError("\n".join(f"{json_file}: {problem}" for problem in problems))
        return config

    def problems(self) -> list[str]:
        """Returns a sentence for everything that no BERT encoder can be built with."""
        problems = []
        for name in self.SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                problems.append(f"{name} is {value!r}; expected a whole number above 0")
        if not problems and self.hidden_size % self.num_attention_heads:
            problems.append(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads"
                f" {self.num_attention_heads}"
            )
        if isinstance(self.hidden_act, str) and self.hidden_act.lower() not in _ACTIVATIONS:
            problems.append(f"hidden_act is {self.hidden_act!r}; known: {', '.join(_ACTIVATIONS)}")
        if self.network_type not in (BERT, BILSTM):
            problems.append(f"model_type is {self.network_type!r}; expected bert")
        if self.__dict__.get("position_embedding_type", "absolute") != "absolute":
            problems.append(
                f"position_embedding_type is {self.__dict__['position_embedding_type']!r};"
                " expected absolute"
            )
        return problems

    @property
    def network_type(self) -> str:
        """What the config describes: BERT, which it is without a model_type, or BILSTM."""
        return self.__dict__.get("model_type", BERT)

    def check_is_bert(self) -> None:
        """Raises a UserError if this is the config of another network than BERT."""
        if self.network_type != BERT:
            raise UserError(
                f"the model's config: model_type is {self.network_type!r}, which only classifies"
                " (bert classify, bert export, bert serve); expected bert; use another model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns all settings."""
        return copy.deepcopy(self.__dict__)

    def to_json_string(self) -> str:
        """Returns all settings as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


class BertModel:
    """The encoder, built into the current graph.

    Example:
        config = BertConfig(vocab_size=32000, hidden_size=512, num_attention_heads=8)
        model = BertModel(config, is_training=True, input_ids=input_ids, input_mask=input_mask)
        logits = tf.matmul(model.get_pooled_output(), weights, transpose_b=True)
    """

    def __init__(
        self,
        config: BertConfig,
        is_training: bool,
        input_ids: tf.Tensor,
        input_mask: Optional[tf.Tensor] = None,
        token_type_ids: Optional[tf.Tensor] = None,
        use_one_hot_embeddings: bool = False,
        scope: Optional[str] = None,
        remove_padding: bool = False,
        precision: str = "float32",
        recompute: bool = False,
        with_pooler: bool = True,
    ):
        """Builds the encoder.

        Args:
          config: sizes of the model.
          is_training: whether dropout is applied.
          input_ids: int32 [B, S], token ids.
          input_mask: int32 [B, S], 1 for tokens and 0 for padding; all ones if not given.
          token_type_ids: int32 [B, S], segment ids; all zeros if not given.
          use_one_hot_embeddings: look words up by a matrix product, which TPUs do faster.
          scope: variable scope, "bert" if not given.
          remove_padding: compute nothing for padding but attention, which leaves zeros there in
            what the layers return. The numbers of real tokens and all gradients stay as they are;
            shapes depend on the data, which TPUs and XLA do not take.
          precision: type that layers compute in: float32, bfloat16 or float16. Variables, layer
            normalization, softmax and everything that is returned are float32.
          recompute: keep only what goes from layer to layer for the gradients, and compute the
            rest again (Chen et al., 2016, https://arxiv.org/abs/1604.06174).
          with_pooler: build the pooled output, too. Checkpoints of models that were trained on
            masked tokens only do not have its variables.

        Raises:
          UserError: the config is that of another network.
        """
        config.check_is_bert()
        if not is_training:
            config = copy.copy(config)
            config.hidden_dropout_prob = 0.0
            config.attention_probs_dropout_prob = 0.0
        if input_mask is None:
            input_mask = tf.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = tf.zeros_like(input_ids)
        tokens = RealTokens(input_mask) if remove_padding else AllTokens(input_mask)

        self.precision = precision
        with tf.variable_scope(scope, default_name="bert"):
            with tf.variable_scope("embeddings"):
                rows, self.word_embeddings, self.embedding_table = _embed(
                    config, input_ids, token_type_ids, tokens, use_one_hot_embeddings
                )
                self.embedding_output = tokens.to_grid(rows)
            with tf.variable_scope("encoder"):
                attended: list[_Attended] = []
                layers = _encode(config, tf.cast(rows, precision), tokens, recompute, attended)
                # A recomputed layer attends again when its gradient is built, which comes later.
                self._attended = tuple(attended)
                # What is not used later is never computed: the graph is pruned.
                self.all_encoder_layers = [
                    tokens.to_grid(tf.cast(rows, tf.float32)) for rows in layers
                ]
            self.sequence_output = self.all_encoder_layers[-1]
            if with_pooler:
                with tf.variable_scope("pooler"):
                    first_token = self.sequence_output[:, 0]  # [B, H]
                    self.pooled_output = dense(
                        first_token, config.hidden_size, config, activation=tf.tanh
                    )

    def get_pooled_output(self) -> tf.Tensor:
        """Returns [B, H]: a dense layer with tanh over the final state of [CLS]."""
        return self.pooled_output

    def get_sequence_output(self) -> tf.Tensor:
        """Returns [B, S, H]: the final layer."""
        return self.sequence_output

    def get_all_encoder_layers(self) -> list[tf.Tensor]:
        """Returns the output of every layer, [B, S, H] each, the first layer first."""
        return self.all_encoder_layers

    def get_embedding_output(self) -> tf.Tensor:
        """Returns [B, S, H]: the sum of the three embeddings, normalized, after dropout."""
        return self.embedding_output

    def get_attention_weights(self) -> list[tf.Tensor]:
        """Returns the attention weights of every layer, the first layer first.

        float32 [B, N, S, S] each, before dropout: how much of the value of each token (the last
        axis, which sums to 1) each token (the one before) takes in. Rows of padding mean nothing.
        """
        return [_attention_weights(*each) for each in self._attended]

    def get_attention_scores(self) -> list[tf.Tensor]:
        """Returns the attention scores of every layer, the first layer first.

        float32 [B, N, S, S] each: query times key / sqrt(D), before padding is masked and before
        the softmax. Rows and columns of padding mean nothing.
        """
        return [_attention_scores(query, key) for query, key, _ in self._attended]

    def get_word_embeddings(self) -> tf.Tensor:
        """Returns [T, H]: the word embedding of every token, before anything is added to it.

        A session may feed it, to compute what the model makes of vectors that are of no word.
        """
        return self.word_embeddings

    def get_embedding_table(self) -> tf.Variable:
        """Returns the word embeddings, [V, H]."""
        return self.embedding_table

    def get_precision(self) -> str:
        """Returns the type that layers compute in."""
        return self.precision


# --- Rows of tokens [T, H], as dense layers see them, and the grid [B, S, H], as attention does ---


class AllTokens:
    """Every position is a row, padding too: T = B * S."""

    def __init__(self, input_mask: tf.Tensor):
        """Makes the mask, [B, S], that of the grid."""
        self.input_mask = input_mask
        self.batch_size, self.length = get_shape_list(input_mask)

    def to_rows(self, grid: tf.Tensor) -> tf.Tensor:
        """[B, S, ...] -> [T, ...]."""
        return tf.reshape(grid, [-1, *grid.shape[2:]])

    def to_grid(self, rows: tf.Tensor) -> tf.Tensor:
        """[T, H] -> [B, S, H]."""
        return tf.reshape(rows, [self.batch_size, self.length, rows.shape[-1]])


class RealTokens(AllTokens):
    """Only tokens are rows, padding is not: T is the number of ones in the mask.

    The two operations are each other's gradient, and no sum over indices is needed for either.
    """

    def __init__(self, input_mask: tf.Tensor):
        """Finds the places of the tokens, [T, 2]."""
        super().__init__(input_mask)
        self.places = tf.cast(tf.where(input_mask > 0), tf.int32)

    def to_rows(self, grid: tf.Tensor) -> tf.Tensor:
        """[B, S, ...] -> [T, ...]."""
        return tf.gather_nd(grid, self.places)

    def to_grid(self, rows: tf.Tensor) -> tf.Tensor:
        """[T, H] -> [B, S, H], zeros where there is padding."""
        return tf.scatter_nd(self.places, rows, [self.batch_size, self.length, rows.shape[-1]])


# --- Embeddings ---


def _embed(
    config: BertConfig,
    input_ids: tf.Tensor,
    token_type_ids: tf.Tensor,
    tokens: AllTokens,
    one_hot: bool,
):
    """Returns the embedding output and the words' part of it [T, H], and their table [V, H]."""
    initializer = create_initializer(config.initializer_range)
    table = tf.get_variable(
        "word_embeddings", [config.vocab_size, config.hidden_size], initializer=initializer
    )
    types = tf.get_variable(
        "token_type_embeddings",
        [config.type_vocab_size, config.hidden_size],
        initializer=initializer,
    )
    positions = tf.get_variable(
        "position_embeddings",
        [config.max_position_embeddings, config.hidden_size],
        initializer=initializer,
    )
    batch_size, length = tokens.batch_size, tokens.length
    if isinstance(length, int) and length > config.max_position_embeddings:
        raise UserError(
            f"sequences of {length} tokens, but the model has {config.max_position_embeddings}"
            f" positions; pass --max_seq_length={config.max_position_embeddings} or less"
        )
    ids, type_ids = tokens.to_rows(input_ids), tokens.to_rows(token_type_ids)  # [T]
    # Of the table's value: a gather from the variable itself would have every later read copy it.
    values = tf.convert_to_tensor(table)
    words = (
        tf.matmul(tf.one_hot(ids, config.vocab_size), values) if one_hot else tf.gather(values, ids)
    )
    # There are few segments: a product with one-hot rows is faster than gathering, and so is its
    # gradient.
    segments = tf.matmul(tf.one_hot(type_ids, config.type_vocab_size), types)  # [T, H]
    # Not gathered by row: this gradient is a sum over the batch.
    places = tf.broadcast_to(positions[:length], [batch_size, length, config.hidden_size])
    output = words + segments + tokens.to_rows(places)
    output = dropout(layer_norm(output, config.layer_norm_eps), config.hidden_dropout_prob)
    return output, words, table


# --- The encoder ---


# What attention weights are made of: query and key [B, N, S, D], and the adder for padding.
_Attended = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def _encode(
    config: BertConfig,
    rows: tf.Tensor,
    tokens: AllTokens,
    recompute: bool,
    attended: list[_Attended],
) -> list[tf.Tensor]:
    """Returns the output of every layer, [T, H] each; appends a member to `attended` for each."""
    # [B, 1, 1, S]: every query attends to every token that is not padding.
    padding = 1.0 - tf.cast(tokens.input_mask, tf.float32)  # [B, S]
    adder = tf.expand_dims(tf.expand_dims(padding, 1), 1) * MASKED_SCORE  # [B, 1, 1, S]
    layers = []
    for index in range(config.num_hidden_layers):

        def layer(rows, scope=f"layer_{index}"):
            with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
                return _layer(config, rows, adder, tokens, attended)

        rows = _recomputed(layer, rows) if recompute else layer(rows)
        layers.append(rows)
    return layers


def _recomputed(layer: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Returns layer(rows); its gradient keeps `rows` only, and computes the rest again.

    tf.recompute_grad would do so at once, not when the gradient is due: the optimizer of graphs
    sees through what it waits by.
    """
    scope = tf.get_variable_scope()

    @tf.custom_gradient
    def compute(rows):
        def gradient(upstream, variables):
            with tf.control_dependencies([upstream]):
                again = tf.identity(rows)
            with tf.variable_scope(scope):
                outputs = layer(again)
            sources = [again, *(variable.handle for variable in variables)]
            of_rows, *of_variables = tf.gradients(outputs, sources, upstream)
            return of_rows, of_variables

        return layer(rows), gradient

    return compute(rows)


def _layer(
    config: BertConfig,
    rows: tf.Tensor,
    adder: tf.Tensor,
    tokens: AllTokens,
    attended: list[_Attended],
) -> tf.Tensor:
    """[T, H] -> [T, H]: attention, then the feed-forward part, both with residual connections."""
    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            context = _attention(config, rows, adder, tokens, attended)
        with tf.variable_scope("output"):
            rows = _project_and_add(config, context, rows)
    with tf.variable_scope("intermediate"):
        hidden = dense(
            rows, config.intermediate_size, config, activation=get_activation(config.hidden_act)
        )
    with tf.variable_scope("output"):
        return _project_and_add(config, hidden, rows)


def _project_and_add(config: BertConfig, inputs: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
    """[T, any], [T, H] -> [T, H]: projects back to H, drops out, adds what came in, normalizes."""
    projected = dropout(dense(inputs, config.hidden_size, config), config.hidden_dropout_prob)
    return layer_norm(projected + residual, config.layer_norm_eps)


def _attention(
    config: BertConfig,
    rows: tf.Tensor,
    adder: tf.Tensor,
    tokens: AllTokens,
    attended: list[_Attended],
) -> tf.Tensor:
    """[T, H] -> [T, H]: multi-headed self-attention (Vaswani et al., 2017, section 3.2)."""
    heads = config.num_attention_heads
    head_size = config.hidden_size // heads

    def project(name: str) -> tf.Tensor:
        grid = tokens.to_grid(dense(rows, config.hidden_size, config, name=name))  # [B, S, H]
        by_head = tf.reshape(grid, [tokens.batch_size, tokens.length, heads, head_size])
        return tf.transpose(by_head, [0, 2, 1, 3])  # [B, N, S, D]

    query, key, value = project("query"), project("key"), project("value")
    query /= math.sqrt(head_size)
    attended.append((query, key, adder))
    # The shape is asked of the query: what is the same in a recomputed layer would be kept for it.
    batch_size, _, length, _ = get_shape_list(query)
    kept = Dropout(config.attention_probs_dropout_prob, [batch_size, heads, length, length])
    context = tf.transpose(_attend(query, key, value, adder, kept), [0, 2, 1, 3])  # [B, S, N, D]
    shape = [tokens.batch_size, tokens.length, config.hidden_size]
    return tokens.to_rows(tf.reshape(context, shape))


def _attend(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, adder: tf.Tensor, kept: "Dropout"
) -> tf.Tensor:
    """softmax(query key' + adder), some of it dropped out, times value: all [B, N, S, D].

    The gradient of the softmax needs the sum of every row of weights times their gradients. That
    is the context times its gradient, which has D columns instead of S (Dao et al., 2022,
    https://arxiv.org/abs/2205.14135, appendix B.2).
    """

    @tf.custom_gradient
    def attend(query, key, value):
        weights = _attention_weights(query, key, adder)  # [B, N, S, S]
        dropped = kept.mask(tf.cast(weights, value.dtype))
        context = kept.scale(tf.matmul(dropped, value))  # [B, N, S, D]

        def gradient(upstream):
            # In float32: half precision would lose what the difference below leaves.
            products = tf.cast(upstream, tf.float32) * tf.cast(context, tf.float32)
            sums = tf.reduce_sum(products, -1, keepdims=True)  # [B, N, S, 1]
            upstream = kept.scale(upstream)
            of_dropped = kept.mask(tf.matmul(upstream, value, transpose_b=True))  # [B, N, S, S]
            of_scores = weights * (tf.cast(of_dropped, tf.float32) - sums)
            of_scores = tf.cast(of_scores, query.dtype)
            return (
                tf.matmul(of_scores, key),
                tf.matmul(of_scores, query, transpose_a=True),
                tf.matmul(dropped, upstream, transpose_a=True),
            )

        return context, gradient

    return attend(query, key, value)


def _attention_weights(query: tf.Tensor, key: tf.Tensor, adder: tf.Tensor) -> tf.Tensor:
    """softmax(query key' + adder), [B, N, S, D] twice -> float32 [B, N, S, S]."""
    return tf.nn.softmax(_attention_scores(query, key) + adder)


def _attention_scores(query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Query key', [B, N, S, D] twice -> float32 [B, N, S, S]; the query is scaled already."""
    return tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)


# --- The heads of pretraining ---


def masked_lm_logits(model: BertModel, config: BertConfig, positions: tf.Tensor) -> tf.Tensor:
    """The masked language model: scores of every vocabulary entry at some positions.

    Args:
      model: the encoder.
      config: its sizes.
      positions: int32 [M, 2], rows of (sequence in the batch, position in the sequence).

    Returns:
      float32 [M, V], logits; the projection to the vocabulary is the table of word embeddings.
    """
    states = tf.gather_nd(model.get_sequence_output(), positions)  # [M, H]
    states = tf.cast(states, model.get_precision())
    with tf.variable_scope("cls/predictions"):
        with tf.variable_scope("transform"):
            states = dense(
                states, config.hidden_size, config, activation=get_activation(config.hidden_act)
            )
            states = layer_norm(states, config.layer_norm_eps)
        bias = tf.get_variable(
            "output_bias", [config.vocab_size], initializer=tf.zeros_initializer()
        )
        table = tf.cast(model.get_embedding_table(), states.dtype)
        logits = tf.matmul(states, table, transpose_b=True)
        return tf.cast(logits, tf.float32) + bias


def next_sentence_logits(model: BertModel, config: BertConfig) -> tf.Tensor:
    """Next-sentence prediction: float32 [B, 2], logits of "follows" (0) and "random" (1)."""
    with tf.variable_scope("cls/seq_relationship"):
        return output_layer(
            model.get_pooled_output(), 2, create_initializer(config.initializer_range)
        )


def output_layer(pooled: tf.Tensor, num_labels: int, initializer) -> tf.Tensor:
    """[B, H] -> [B, labels]: a linear layer over the pooled output; its weights are [labels, H]."""
    weights = tf.get_variable(
        "output_weights", [num_labels, pooled.shape[-1]], initializer=initializer
    )
    bias = tf.get_variable("output_bias", [num_labels], initializer=tf.zeros_initializer())
    return tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias)


# --- Parts ---


def dense(
    inputs: tf.Tensor,
    units: int,
    config: BertConfig,
    activation: Optional[Callable] = None,
    name: str = "dense",
) -> tf.Tensor:
    """[T, any] -> [T, units]: a linear layer in the scope `name`, then `activation`, if any."""
    with tf.variable_scope(name):
        initializer = create_initializer(config.initializer_range)
        kernel = tf.get_variable("kernel", [inputs.shape[-1], units], initializer=initializer)
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        outputs = tf.matmul(inputs, tf.cast(kernel, inputs.dtype))
        outputs = tf.nn.bias_add(outputs, tf.cast(bias, inputs.dtype))
        return activation(outputs) if activation else outputs


def layer_norm(inputs: tf.Tensor, epsilon: float = 1e-12) -> tf.Tensor:
    """Layer normalization over the last axis (Ba et al., 2016, equation 4) in scope "LayerNorm"."""
    with tf.variable_scope("LayerNorm"):
        size = [inputs.shape[-1]]
        beta = tf.get_variable("beta", size, initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", size, initializer=tf.ones_initializer())
        outputs = _normalize(tf.cast(inputs, tf.float32), gamma, beta, epsilon)
        return tf.cast(outputs, inputs.dtype)


def _normalize(values: tf.Tensor, gamma: tf.Variable, beta: tf.Variable, epsilon: float):
    """Layer normalization of float32 [T, H], with a gradient of few passes over memory."""

    @tf.custom_gradient
    def normalize(values, gamma, beta):
        centered = values - tf.reduce_mean(values, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)  # [T, 1]
        normal = centered * scale

        def gradient(upstream):
            of_gamma = tf.reduce_sum(upstream * normal, axis=rows)
            of_beta = tf.reduce_sum(upstream, axis=rows)
            of_normal = upstream * gamma
            mean = tf.reduce_mean(of_normal, -1, keepdims=True)
            along = tf.reduce_mean(of_normal * normal, -1, keepdims=True)
            return (of_normal - mean - normal * along) * scale, of_gamma, of_beta

        return normal * gamma + beta, gradient

    rows = list(range(values.shape.rank - 1))
    return normalize(values, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


# A graph collection: int32 [2], what the random numbers of dropout come from if it is there, and
# the scope. With the step in it, a step has the same dropout whether or not the run was interrupted
# before, and whether or not a layer is recomputed.
DROPOUT_SEED = "dropout_seed"


class Dropout:
    """Which elements of a tensor are dropped; the others are scaled up for it."""

    def __init__(self, probability: float, shape: Sequence):
        """Draws random numbers; with DROPOUT_SEED, at most once in a variable scope."""
        self._factor = 1.0 / (1.0 - probability)
        self._kept: Optional[tf.Tensor] = None
        if probability:
            self._kept = _random_numbers(shape) >= probability

    def mask(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs, zero where they are dropped, not scaled."""
        if self._kept is None:
            return inputs
        return tf.where_v2(self._kept, inputs, tf.zeros([], inputs.dtype))

    def scale(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs, scaled up; as they are where nothing is dropped."""
        return inputs if self._kept is None else inputs * self._factor


def _random_numbers(shape: Sequence) -> tf.Tensor:
    """Returns float32 numbers from 0 to 1, which DROPOUT_SEED and the scope determine, if any."""
    seeds = tf.get_collection(DROPOUT_SEED)
    if not seeds:
        return tf.random.uniform(shape)
    scope = tf.get_variable_scope().name.encode()
    seed = seeds[-1] + [zlib.crc32(scope) & 0x7FFFFFFF, 0]
    # Those of tf.random.stateless_uniform, without its two passes to shift them to other ranges.
    return tf.raw_ops.StatelessRandomUniform(shape=shape, seed=seed)


def dropout(inputs: tf.Tensor, probability: float) -> tf.Tensor:
    """Sets elements to zero with `probability` and scales the others up; the identity for 0.

    With DROPOUT_SEED, there may be one dropout in a variable scope.
    """
    if not probability:
        return inputs
    kept = Dropout(probability, get_shape_list(inputs))

    @tf.custom_gradient
    def drop(inputs):
        return kept.scale(kept.mask(inputs)), lambda upstream: kept.scale(kept.mask(upstream))

    return drop(inputs)


def create_initializer(initializer_range: float = 0.02):
    """The initial distribution of weights: a normal one cut off at two standard deviations."""
    return tf.truncated_normal_initializer(stddev=initializer_range)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Gaussian error linear unit, exact: x times the normal distribution's cdf (https://arxiv.org/abs/1606.08415)."""

    @tf.custom_gradient
    def compute(x):
        below = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
        # Computed with the rest, while x is at hand; it is all that is kept for the gradient.
        slope = below + x * tf.exp(-0.5 * tf.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))
        return x * below, lambda upstream: upstream * slope

    return compute(x)


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """The paper's approximation of gelu by tanh, which some checkpoints were trained with."""
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * tf.pow(x, 3))))


_ACTIVATIONS: dict[str, Optional[Callable[[tf.Tensor], tf.Tensor]]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_tanh": gelu_tanh,
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "linear": None,
}


def get_activation(activation: Any) -> Optional[Callable[[tf.Tensor], tf.Tensor]]:
    """Returns the function of that name; None for "linear" and for no name; a function as it is.

    Raises:
      UserError: the name is unknown.
    """
    if not activation or not isinstance(activation, str):
        return activation or None
    if activation.lower() not in _ACTIVATIONS:
        raise UserError(f"hidden_act {activation!r} is unknown; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation.lower()]


def get_shape_list(tensor: tf.Tensor) -> list:
    """Returns the shape of a tensor: ints where it is known, scalar int32 tensors elsewhere."""
    dynamic = tf.shape(tensor)
    return [
        dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape.as_list())
    ]
