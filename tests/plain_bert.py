"""BERT in numpy, one sequence at a time in double precision: the oracle of the fast one."""

import json
import math

import numpy as np
import tensorflow.compat.v1 as tf

erf = np.vectorize(math.erf)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class PlainBert:
    """A checkpoint in Google's layout."""

    def __init__(self, directory):
        reader = tf.train.load_checkpoint(str(directory / "bert_model.ckpt"))
        names = reader.get_variable_to_shape_map()
        self.weights = {name: reader.get_tensor(name).astype(np.float64) for name in names}
        self.config = json.loads((directory / "bert_config.json").read_text())

    def dense(self, scope, states):
        return states @ self.weights[f"{scope}/kernel"] + self.weights[f"{scope}/bias"]

    def gelu(self, states):
        return states * 0.5 * (1 + erf(states / math.sqrt(2)))

    def norm(self, scope, states):
        centered = states - states.mean(-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-12)
        gamma, beta = (self.weights[f"{scope}/LayerNorm/{name}"] for name in ("gamma", "beta"))
        return scaled * gamma + beta

    def attention(self, scope, states):
        heads = self.config["num_attention_heads"]

        def split(name):  # [N, S, D]
            rows = self.dense(f"{scope}/self/{name}", states)
            return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)

        query, key, value = map(split, ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        context = np.exp(log_softmax(scores)) @ value
        return context.transpose(1, 0, 2).reshape(states.shape), scores

    def encode(self, ids, segments):
        """[S] -> [S, H]."""
        return self.encode_layers(ids, segments)[0][-1]

    def encode_layers(self, ids, segments):
        """[S] -> embeddings and the output of each layer, [S, H]; scores of each, [N, S, S]."""
        tables = [
            self.weights[f"bert/embeddings/{name}_embeddings"]
            for name in ("word", "token_type", "position")
        ]
        places = range(len(ids))
        summed = sum(table[list(rows)] for table, rows in zip(tables, (ids, segments, places)))
        states = self.norm("bert/embeddings", summed)
        all_states, all_scores = [states], []
        for number in range(self.config["num_hidden_layers"]):
            scope = f"bert/encoder/layer_{number}"
            context, scores = self.attention(f"{scope}/attention", states)
            attended = self.dense(f"{scope}/attention/output/dense", context)
            states = self.norm(f"{scope}/attention/output", states + attended)
            inside = self.gelu(self.dense(f"{scope}/intermediate/dense", states))
            states = self.norm(
                f"{scope}/output", states + self.dense(f"{scope}/output/dense", inside)
            )
            all_states.append(states)
            all_scores.append(scores)
        return all_states, all_scores

    def masked_lm(self, ids, segments=None):
        """[S] -> [S, V], logarithms of the probabilities of each token at each position."""
        states = self.encode(ids, segments or [0] * len(ids))
        states = self.gelu(self.dense("cls/predictions/transform/dense", states))
        states = self.norm("cls/predictions/transform", states)
        table = self.weights["bert/embeddings/word_embeddings"]
        return log_softmax(states @ table.T + self.weights["cls/predictions/output_bias"])
