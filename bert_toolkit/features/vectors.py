"""Vectors of tokens and of texts, made of an encoder's layers; and its attention weights."""

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.features.layers import Layer
from bert_toolkit.training import model_functions
from bert_toolkit.training.outputs import Network, Outputs

# What there is for one vector a text.
COMBINE = ("separate", "concat", "mean", "sum")
POOLING = ("cls", "mean", "max", "mean_max")


@dataclasses.dataclass(frozen=True)
class Vectors:
    """What is made of the layers: see the flags of these names."""

    combine: str = "separate"
    pooling: str = "none"
    normalize: bool = False

    def check(self) -> None:
        """Raises a UserError unless one vector a text can be made so, as a Python caller asks."""
        for name, known in (("combine", COMBINE), ("pooling", POOLING)):
            value = getattr(self, name)
            if value not in known:
                expected = f"{', '.join(known[:-1])} or {known[-1]}"
                raise UserError(f"{name}={value!r}: expected {expected}")


EVERY_LAYER = Vectors()


def network(
    config: modeling.BertConfig,
    layers: Sequence[Layer],
    compute: ComputeOptions = DEFAULT_COMPUTE,
    vectors: Vectors = EVERY_LAYER,
) -> Network:
    """Returns the function (features, mode) -> Outputs: BERT's layers, or what is made of them.

    Predictions are "layer_N" for each layer, "layer_embeddings" for the embeddings, or "combined"
    [B, S, D]; or with pooling "vector" [B, D] and "pooled_tokens" [B]. A feature "pooling_mask" may
    say what to pool, else "input_mask" does.
    """

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, compute, with_pooler=False)
        outputs = [_output(model, layer) for layer in layers]  # [B, S, H] each
        predictions = {}
        if "unique_ids" in features:
            predictions["unique_ids"] = features["unique_ids"]
        if vectors.pooling != "none":
            states = combined(outputs, vectors.combine)
            mask = features.get("pooling_mask", features["input_mask"])
            predictions["pooled_tokens"] = tf.reduce_sum(mask, 1)
            vector = pooled(states, mask, vectors.pooling)
            predictions["vector"] = tf.nn.l2_normalize(vector, -1) if vectors.normalize else vector
        elif vectors.combine != "separate":
            predictions["combined"] = combined(outputs, vectors.combine)
        else:
            predictions.update({f"layer_{n}": output for n, output in zip(layers, outputs)})
        return Outputs(predictions)

    return build


def _output(model: modeling.BertModel, layer: Layer) -> tf.Tensor:
    """Returns [B, S, H]: the output of a layer, or of the embeddings."""
    if isinstance(layer, int):
        return model.get_all_encoder_layers()[layer]
    return model.get_embedding_output()


def attention_network(
    config: modeling.BertConfig, layers: Sequence[Layer], compute: ComputeOptions = DEFAULT_COMPUTE
) -> Network:
    """Returns the function (features, mode) -> Outputs: the attention weights of some layers.

    The prediction is "attention", float32 [B, S, L, N, S]: for each token, by layer and head, what
    it takes in of every other. Tokens come first, as in all that is predicted of tokens. The
    layers are numbers.
    """

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, compute, with_pooler=False)
        weights = model.get_attention_weights()  # [B, N, S, S] each
        chosen = tf.stack([weights[int(layer)] for layer in layers], 1)  # [B, L, N, S, S]
        predictions = {"attention": tf.transpose(chosen, [0, 3, 1, 2, 4])}
        if "unique_ids" in features:
            predictions["unique_ids"] = features["unique_ids"]
        return Outputs(predictions)

    return build


def combined(outputs: list[tf.Tensor], combine: str) -> tf.Tensor:
    """Layers [B, S, H] -> [B, S, D]: their sum, their mean, or all one after the other."""
    if combine in ("sum", "mean"):
        total = tf.add_n(outputs)
        return total / len(outputs) if combine == "mean" else total
    return tf.concat(outputs, -1)


def pooled(states: tf.Tensor, pooling_mask: tf.Tensor, pooling: str) -> tf.Tensor:
    """[B, S, D] -> [B, D], or [B, 2 * D] of mean_max: where the mask is 1; zeros if nowhere."""
    if pooling == "cls":
        return states[:, 0]
    # TFLite knows expand_dims, but no new axis in an index.
    mask = tf.expand_dims(tf.cast(pooling_mask, tf.float32), -1)  # [B, S, 1]
    mean = tf.reduce_sum(states * mask, 1) / tf.maximum(tf.reduce_sum(mask, 1), 1.0)
    largest = tf.reduce_max(tf.where_v2(mask > 0, states, states.dtype.min), 1)
    largest = tf.where_v2(tf.reduce_any(mask > 0, 1), largest, 0.0)
    return {"mean": mean, "max": largest, "mean_max": tf.concat([mean, largest], -1)}[pooling]
