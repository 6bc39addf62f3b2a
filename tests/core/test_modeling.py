import json
import math
import os
import platform

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN

import modeling
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.pretraining.network import pretraining_network
from bert_toolkit.training.estimator_api import TRAIN

pytestmark = pytest.mark.platform

CONFIG = str(GOLDEN / "model/bert_config.json")


@pytest.fixture(scope="module")
def batch():
    return dict(np.load(GOLDEN / "model_outputs.npz"))


def compute(
    batch, one_hot=False, length=128, is_training=False, remove_padding=False, **config_changes
):
    """Runs the golden checkpoint over the golden batch; returns every output."""
    config = modeling.BertConfig.from_json_file(CONFIG)
    config.__dict__.update(config_changes)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        ids, mask, segments = (
            tf.constant(batch[name][:, :length])
            for name in ("input_ids", "input_mask", "segment_ids")
        )
        model = modeling.BertModel(
            config, is_training, ids, mask, segments, one_hot, remove_padding=remove_padding
        )
        chosen = tf.where(batch["masked_lm_weights"] > 0)
        positions = tf.stack(
            [tf.cast(chosen[:, 0], tf.int32), tf.gather_nd(batch["masked_lm_positions"], chosen)], 1
        )
        masked_logits = modeling.masked_lm_logits(model, config, positions)
        masked_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.gather_nd(batch["masked_lm_ids"], chosen), logits=masked_logits
        )
        outputs = {
            "embedding_output": model.get_embedding_output(),
            "layers": tf.stack(model.get_all_encoder_layers()),
            "sequence_output": model.get_sequence_output(),
            "pooled_output": model.get_pooled_output(),
            "masked_lm_loss": tf.reduce_mean(masked_loss),
            "next_sentence_log_probs": tf.nn.log_softmax(
                modeling.next_sentence_logits(model, config)
            ),
        }
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}
        shapes = [[name, variable.shape.as_list()] for name, variable in variables.items()]
        tf.train.init_from_checkpoint(
            str(GOLDEN / "model/bert_model.ckpt"), {name: name for name in variables}
        )
        session.run(tf.global_variables_initializer())
        return {**session.run(outputs), "shapes": shapes}


@pytest.fixture(scope="module", params=[False, True], ids=["grid", "rows"])
def computed(request, batch):
    return compute(batch, remove_padding=request.param)


def gradients(batch, remove_padding):
    """The gradients of both pretraining losses by variable, as the optimizer gets them."""
    config = modeling.BertConfig.from_json_file(CONFIG)
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            name: tf.constant(batch[name]) for name in batch if batch[name].shape[:1] == (8,)
        }
        outputs = pretraining_network(config, True, ComputeOptions(remove_padding=remove_padding))(
            features, TRAIN
        )
        variables = tf.trainable_variables()
        tf.train.init_from_checkpoint(
            str(GOLDEN / "model/bert_model.ckpt"), {v.op.name: v.op.name for v in variables}
        )
        session.run(tf.global_variables_initializer())
        found = tf.gradients(outputs.loss, variables)
        norm = tf.global_norm(found)
        dense = {v.op.name: tf.convert_to_tensor(g) for v, g in zip(variables, found)}
        return session.run((dense, norm))


def test_gradients_do_not_depend_on_padding(batch):
    assert (batch["input_mask"] == 0).any()
    (with_padding, norm), (without, other_norm) = (
        gradients(batch, remove) for remove in (False, True)
    )
    assert other_norm == pytest.approx(norm, rel=1e-5)
    for name, value in with_padding.items():
        assert np.abs(without[name] - value).max() <= 1e-5 * max(1.0, np.abs(value).max()), name


def test_states_of_padding_are_zero_where_it_is_removed(batch):
    layers = compute(batch, remove_padding=True)["layers"]
    assert (layers[:, batch["input_mask"] == 0] == 0).all()


@pytest.mark.parametrize("name", ["embedding_output", "layers"])
def test_golden_states_at_real_positions(batch, computed, name):
    mask = batch["input_mask"][..., None]
    assert np.abs((computed[name] - batch[name]) * mask).max() < 1e-5


def test_golden_pooled_output_and_losses(batch, computed):
    assert np.abs(computed["pooled_output"] - batch["pooled_output"]).max() < 1e-5
    assert (
        np.abs(computed["next_sentence_log_probs"] - batch["next_sentence_log_probs"]).max() < 1e-5
    )
    assert computed["masked_lm_loss"] == pytest.approx(batch["masked_lm_loss"], rel=1e-5)
    assert (computed["sequence_output"] == computed["layers"][-1]).all()


def test_variable_names_and_shapes_are_the_published_ones(computed):
    assert sorted(computed["shapes"]) == sorted(
        json.loads((GOLDEN / "variable_names.json").read_text())
    )


def test_one_hot_look_up_gives_the_same(batch, computed):
    mask = batch["input_mask"][..., None]
    assert np.abs((compute(batch, one_hot=True)["layers"] - computed["layers"]) * mask).max() < 1e-5


def test_cutting_padding_off_changes_nothing(batch, computed):
    short = {name: batch[name] for name in batch}
    lengths = batch["input_mask"].sum(axis=1)
    rows = lengths < lengths.max()
    assert rows.any()
    longest = int(lengths[rows].max())
    for name in (
        "input_ids",
        "input_mask",
        "segment_ids",
        "masked_lm_positions",
        "masked_lm_ids",
        "masked_lm_weights",
    ):
        short[name] = batch[name][rows]
    cut = compute(short, length=longest)
    mask = batch["input_mask"][rows][:, :longest, None]
    assert np.abs((cut["layers"] - computed["layers"][:, rows, :longest]) * mask).max() < 1e-5


def test_dropout_only_while_training(batch, computed):
    changes = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    assert (
        np.abs(compute(batch, **changes)["pooled_output"] - computed["pooled_output"]).max() < 1e-6
    )
    assert (
        np.abs(
            compute(batch, is_training=True, **changes)["pooled_output"] - computed["pooled_output"]
        ).max()
        > 0.01
    )


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "parameters"),
    [
        (2, 128, 2, 4_385_920),
        (4, 512, 8, 28_763_648),
        (8, 512, 8, 41_373_184),
        (12, 768, 12, 109_482_240),
        pytest.param(24, 1024, 16, 335_141_888, marks=pytest.mark.slow),
    ],
    ids=["tiny", "small", "medium", "base", "large"],
)
def test_parameters_of_known_models(layers, hidden, heads, parameters):
    config = modeling.BertConfig(
        30522,
        hidden,
        layers,
        heads,
        intermediate_size=4 * hidden,
        type_vocab_size=2,
        max_position_embeddings=512,
    )
    with tf.Graph().as_default():
        modeling.BertModel(config, False, tf.zeros([2, 8], tf.int32))
        assert (
            sum(math.prod(variable.shape.as_list()) for variable in tf.trainable_variables())
            == parameters
        )


def test_default_mask_and_segments():
    config = modeling.BertConfig(50, 8, 1, 2, 16, type_vocab_size=2)
    ids = np.arange(6).reshape(2, 3).astype(np.int32)
    with tf.Graph().as_default(), tf.Session() as session:
        first = modeling.BertModel(config, False, tf.constant(ids), scope="bert")
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            ones, zeros = tf.ones_like(ids), tf.zeros_like(ids)
            second = modeling.BertModel(config, False, tf.constant(ids), ones, zeros, scope="bert")
        session.run(tf.global_variables_initializer())
        a, b = session.run([first.get_sequence_output(), second.get_sequence_output()])
    assert a.shape == (2, 3, 8)
    assert (a == b).all()


def test_activations():
    x = np.linspace(-4, 4, 41).astype(np.float32)
    erf = np.vectorize(math.erf)
    expected = {
        "gelu": 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "gelu_new": 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "relu": np.maximum(x, 0),
        "TANH": np.tanh(x),
    }
    with tf.Graph().as_default(), tf.Session() as session:
        for name, values in expected.items():
            assert (
                np.abs(session.run(modeling.get_activation(name)(tf.constant(x))) - values).max()
                < 1e-6
            )
    assert (
        modeling.get_activation("linear")
        is modeling.get_activation("")
        is modeling.get_activation(None)
        is None
    )
    assert modeling.get_activation("gelu_tanh") is modeling.get_activation("gelu_new")
    assert modeling.get_activation(tf.nn.relu) is tf.nn.relu
    with pytest.raises(UserError, match="'swish' is unknown; known: gelu"):
        modeling.get_activation("swish")


def plain_gelu(x):
    return 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0)))


def plain_layer_norm(x, gamma, beta):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-12) * gamma + beta


def plain_attention(query, key, value, adder, dropped):
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + adder)
    return tf.matmul(dropped.scale(dropped.mask(weights)), value)


def test_gradients_that_are_written_out_are_those_of_the_plain_formulas():
    random = np.random.RandomState(1)

    def constant(*shape):
        return tf.constant(random.normal(size=shape), tf.float32)

    with tf.Graph().as_default(), tf.Session() as session:
        x, gamma, beta = constant(7, 16), constant(16), constant(16)
        heads = [constant(2, 3, 5, 4) for _ in range(3)]
        adder = tf.constant([[0.0] * 5, [0.0] * 3 + [modeling.MASKED_SCORE] * 2])[:, None, None]
        dropped = modeling.Dropout(0.3, [2, 3, 5, 5])
        cases = {
            "gelu": (modeling.gelu, plain_gelu, [x]),
            "layer_norm": (
                lambda *inputs: modeling._normalize(*inputs, 1e-12),
                plain_layer_norm,
                [x, gamma, beta],
            ),
            "attention": (
                lambda *inputs: modeling._attend(*inputs, adder, dropped),
                lambda *inputs: plain_attention(*inputs, adder, dropped),
                heads,
            ),
        }
        for name, (ours, plain, inputs) in cases.items():
            found, expected = ours(*inputs), plain(*inputs)
            upstream = constant(*found.shape.as_list())
            pairs = zip(
                [found, *tf.gradients(found, inputs, upstream)],
                [expected, *tf.gradients(expected, inputs, upstream)],
            )
            for one, other in session.run(list(pairs)):
                assert np.abs(one).max() > 0.1, name
                assert np.abs(one - other).max() < 2e-6 * max(1, np.abs(other).max()), name


@pytest.mark.skipif(
    platform.machine() != "x86_64" or os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1",
    reason="TensorFlow fuses it by way of oneDNN",
)
def test_gelu_is_fused_with_its_product_for_inference(batch):
    """So it is written in the form that the optimizer of graphs looks for."""
    config = modeling.BertConfig.from_json_file(CONFIG)
    with tf.Graph().as_default(), tf.Session() as session:
        ids = tf.placeholder(tf.int32, [None, None])
        model = modeling.BertModel(config, False, ids)
        session.run(tf.global_variables_initializer())
        options = tf.RunOptions(output_partition_graphs=True)
        metadata = tf.RunMetadata()
        feed = {ids: batch["input_ids"]}
        session.run(model.get_sequence_output(), feed, options, metadata)
        ran = [node.op for graph in metadata.partition_graphs for node in graph.node]
    assert "Erf" not in ran
    assert any("FusedMatMul" in op for op in ran)


def test_shapes_static_and_dynamic():
    with tf.Graph().as_default(), tf.Session() as session:
        tensor = tf.placeholder(tf.float32, [None, 3])
        rows, columns = modeling.get_shape_list(tensor)
        assert columns == 3
        assert session.run(rows, {tensor: np.zeros([5, 3])}) == 5


def test_config_keeps_what_it_does_not_know():
    config = modeling.BertConfig.from_dict(
        {"vocab_size": 100, "hidden_size": 12, "note": {"a": [1]}}
    )
    assert (config.hidden_size, config.num_hidden_layers, config.note) == (12, 12, {"a": [1]})
    again = modeling.BertConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()


def test_config_of_hugging_face(tmp_path):
    values = json.loads((GOLDEN / "model/bert_config.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {**values, "model_type": "bert", "layer_norm_eps": 1e-7, "architectures": ["BertModel"]}
        )
    )
    config = modeling.BertConfig.from_json_file(str(path))
    assert config.layer_norm_eps == 1e-7
    assert config.to_dict()["architectures"] == ["BertModel"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, "vocab_size is None; expected a whole number above 0"),
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; known: gelu"),
        ({"model_type": "roberta"}, "model_type is 'roberta'; expected bert"),
        ({"position_embedding_type": "relative_key"}, "expected absolute"),
        ("hidden_size", "no hidden_size; expected the model's own config"),
        ("[1, 2]", "a JSON list"),
        ("{", "not JSON"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path, change, message):
    values = json.loads((GOLDEN / "model/bert_config.json").read_text())
    path = tmp_path / "bert_config.json"
    if isinstance(change, dict):
        path.write_text(json.dumps({**values, **change}))
    else:
        values.pop(change, None)
        path.write_text(json.dumps(values) if change in modeling.BertConfig.SIZES else change)
    with pytest.raises(UserError, match=message) as caught:
        modeling.BertConfig.from_json_file(str(path))
    assert str(path) in str(caught.value)


def test_a_missing_config_and_one_without_vocab_size():
    with pytest.raises(UserError, match="nowhere.json: cannot be read"):
        modeling.BertConfig.from_json_file("nowhere.json")
    with pytest.raises(UserError, match="no vocab_size"):
        modeling.BertConfig.from_dict({})


def test_sequences_longer_than_the_positions():
    config = modeling.BertConfig(50, 8, 1, 2, 16, max_position_embeddings=4)
    with (
        tf.Graph().as_default(),
        pytest.raises(UserError, match="sequences of 5 tokens, but the model has 4"),
    ):
        modeling.BertModel(config, False, tf.zeros([1, 5], tf.int32))
