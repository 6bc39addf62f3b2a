"""Steps in parts, recomputed, in half precision, with other optimizers: against the plain step."""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN

import modeling
import optimization
from bert_toolkit.checkpoints import checkpoint_files, restore
from bert_toolkit.compute import DEFAULT_COMPUTE
from bert_toolkit.errors import UserError
from bert_toolkit.pretraining.network import pretraining_network
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.problems import MULTI, SINGLE, Problem
from bert_toolkit.tasks.classification import classifier_network
from bert_toolkit.training import training_step

BINARY = Problem(SINGLE, ("0", "1"))
CONFIG = modeling.BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))
PLAIN = training_step.Training(1e-3, 20, 4)
STEPS = 6


def train(kind, training=PLAIN, dropout=0.0, rdrop_alpha=0.0, **compute):
    """Trains the golden model on the golden batch; returns the values shown and the weights."""
    batch = dict(np.load(GOLDEN / "model_outputs.npz"))
    config = modeling.BertConfig.from_dict(CONFIG.to_dict())
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    compute = dataclasses.replace(DEFAULT_COMPUTE, **compute)
    one_order = tf.ConfigProto(inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.Session(config=one_order) as session:
        tf.set_random_seed(7)
        names = [field.name for field in pretraining_schema(128, 20).fields]
        features = {name: tf.constant(batch[name]) for name in names}
        network = pretraining_network(config, True, compute)
        if kind == "classify":
            features["label_ids"] = features["next_sentence_labels"][:, 0]
            features["is_real_example"] = tf.ones([8], tf.int32)
            loss = classifier_network.PLAIN_LOSS
            network = classifier_network.network(config, BINARY, compute, loss, rdrop_alpha)
        step = training_step.make(network, features, training)
        weights = checkpoint_files.Weights(str(GOLDEN / "model/bert_model.ckpt"), "golden")
        variables = tf.trainable_variables()
        restore.restore_at_start(weights, restore.fit(weights, variables))
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        values = [session.run([step.values, step.operation])[0] for _ in range(STEPS)]
        slots = {variable.op.name for variable in tf.global_variables()}
        weights = {variable.op.name: session.run(variable) for variable in variables}
    return values, weights, slots


def assert_close(one, other, bound):
    for mine, theirs in zip(one[0], other[0]):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value == pytest.approx(theirs[name], rel=bound, abs=bound), name
    for name, value in one[1].items():
        # Adam makes a whole step of a gradient that is all rounding, as a key's bias has.
        if not name.endswith("key/bias"):
            np.testing.assert_allclose(value, other[1][name], rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("kind", [pytest.param("pretrain", marks=pytest.mark.slow), "classify"])
@pytest.mark.parametrize("parts", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_a_batch_in_parts_is_a_step_like_the_whole(kind, parts, monkeypatch):
    monkeypatch.setattr(optimization, "MAX_GRADIENT_NORM", 0.01)
    in_parts = dataclasses.replace(PLAIN, parts=parts)
    whole = train(kind)
    assert all(values["gradient_norm"] > 0.01 for values in whole[0])  # all are clipped
    assert_close(train(kind, in_parts), whole, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrain", "classify"])
def test_a_first_step_in_parts_has_the_loss_and_norm_of_the_batch(kind):
    [whole, in_parts] = (train(kind, dataclasses.replace(PLAIN, parts=n))[0][0] for n in (1, 4))
    for name, value in whole.items():
        assert in_parts[name] == pytest.approx(value, rel=3e-6 if "norm" in name else 1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recomputed_layers_are_the_same_layers(dropout):
    plain = train("pretrain", dropout=dropout)
    assert_close(train("pretrain", dropout=dropout, recompute=True), plain, 1e-5)


@pytest.mark.slow
def test_dropout_differs_between_parts_and_steps():
    one = train("classify", dropout=0.5)
    two = train("classify", dataclasses.replace(PLAIN, parts=2), dropout=0.5)
    assert one[0][0]["loss"] != pytest.approx(two[0][0]["loss"], rel=1e-4)
    again = train("classify", dropout=0.5)
    assert [values["loss"] for values in one[0]] == [values["loss"] for values in again[0]]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["pretrain", "classify"])
def test_half_precision_learns_alike_and_keeps_the_variables(kind, precision):
    settings = optimization.OptimizerSettings(loss_scaling=precision == "float16")
    plain = train(kind)
    half = train(kind, dataclasses.replace(PLAIN, settings=settings), precision=precision)
    losses, expected = ([values["loss"] for values in run[0]] for run in (half, plain))
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert not np.array_equal(losses, expected)
    assert half[2] == plain[2]
    assert {value.dtype for value in half[1].values()} == {np.dtype("float32")}


def least_squares(optimizer, steps, scale=1.0, size=(4, 3)):
    """Trains w towards 0 with gradient 2 w scale; returns w, and its other variables by name."""
    start = np.random.RandomState(1).normal(size=size).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        weights = tf.get_variable("bert/encoder/layer_0/kernel", initializer=start)
        made = optimizer()
        gradients = made.gradients(scale * tf.reduce_sum(weights**2), [weights])
        step = made.apply(gradients, tf.train.get_or_create_global_step()).operation
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for _ in range(steps):
            session.run(step)
        others = {v.op.name: session.run(v) for v in tf.global_variables() + tf.local_variables()}
        return start, session.run(weights), others


def test_lamb_in_numpy():
    """You et al., 2020, algorithm 2."""
    settings = optimization.OptimizerSettings("lamb")
    start, ours, _ = least_squares(lambda: optimization.make_optimizer(0.1, settings), 5, scale=0.1)
    w, m, v = start.astype(np.float64), 0.0, 0.0
    for step in range(1, 6):
        gradient = 0.2 * w
        gradient = gradient * min(1.0, 1.0 / np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrected = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6)
        update = corrected + 0.01 * w
        w = w - 0.1 * np.linalg.norm(w) / np.linalg.norm(update) * update
    np.testing.assert_allclose(ours, w, rtol=1e-5)


def test_bias_correction_in_numpy():
    """Loshchilov and Hutter, 2019, algorithm 2, with the decay times the learning rate."""
    settings = optimization.OptimizerSettings(bias_correction=True)
    start, ours, _ = least_squares(lambda: optimization.make_optimizer(0.1, settings), 5, scale=0.1)
    w, m, v = start.astype(np.float64), 0.0, 0.0
    for step in range(1, 6):
        gradient = 0.2 * w
        gradient = gradient * min(1.0, 1.0 / np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6)
        w = w - 0.1 * (update + 0.01 * w)
    np.testing.assert_allclose(ours, w, rtol=1e-5)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    def optimizer():
        return optimization.AdamWeightDecayOptimizer(0.1, loss_scale=optimization.LossScale())

    start, after, variables = least_squares(optimizer, 3, scale=1e35)
    assert np.array_equal(start, after)
    assert variables["loss_scale"] == 2.0**12
    assert variables["global_step"] == 3
    start, after, variables = least_squares(optimizer, 3)
    _, plain, _ = least_squares(lambda: optimization.AdamWeightDecayOptimizer(0.1), 3)
    np.testing.assert_allclose(after, plain, rtol=1e-6)
    assert variables["loss_scale"] == 2.0**15


def test_the_loss_scale_grows():
    def optimizer():
        scale = optimization.LossScale(4.0, steps_to_double=3)
        return optimization.AdamWeightDecayOptimizer(0.1, loss_scale=scale)

    assert least_squares(optimizer, 7)[2]["loss_scale"] == 16.0


@pytest.mark.parametrize(
    ("frozen", "moving"),
    [
        (["embeddings", "0"], {"layer_1", "pooler", "output"}),
        (["embeddings", "encoder", "pooler"], {"output"}),
        (["0-1"], {"embeddings", "pooler", "output"}),
    ],
)
def test_frozen_parts_stay(frozen, moving):
    settings = optimization.OptimizerSettings(frozen=frozen)
    _, weights, variables = train("classify", dataclasses.replace(PLAIN, settings=settings))
    golden = tf.train.load_checkpoint(str(GOLDEN / "model/bert_model.ckpt"))
    moved = set()
    for name, value in weights.items():
        has_slots = f"{name}/adam_m" in variables
        if not golden.has_tensor(name):
            moved.add("output")
        elif not np.array_equal(value, golden.get_tensor(name)):
            moved.add(next(part for part in name.split("/")[1:] if part != "encoder"))
            assert has_slots
        else:
            assert not has_slots
    assert moved == moving


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ("7", "--freeze=7: the model has no such layer"),
        ("3-1", "ends before it begins"),
        ("head", "expected embeddings, encoder, pooler, or layers"),
    ],
)
def test_parts_that_cannot_be_frozen(frozen, message):
    settings = optimization.OptimizerSettings(frozen=[frozen])
    with pytest.raises(UserError, match=message):
        train("classify", dataclasses.replace(PLAIN, settings=settings))


NAMES = [
    "bert/embeddings/word_embeddings",
    "bert/encoder/layer_0/output/dense/kernel",
    "bert/encoder/layer_1/output/dense/kernel",
    "bert/pooler/dense/kernel",
    "output_weights",
]


def steps_of_ones(settings, steps):
    """Gives variables of every part the gradient 1; returns their values after each step."""
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=[1.0]) for name in NAMES]
        loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
        step = optimization.create_optimizer(loss, 0.01, 10, 0, settings=settings)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        found = []
        for _ in range(steps):
            session.run(step)
            found.append({v.op.name: session.run(v)[0] for v in tf.global_variables("bert|output")})
    return found


def test_rates_of_layers():
    settings = optimization.OptimizerSettings(layer_decay=0.5, schedule="constant")
    [values] = steps_of_ones(settings, 1)
    steps = [1.0 - values[name] for name in NAMES]
    shares = [step / steps[-1] for step in steps]
    np.testing.assert_allclose(shares, [0.125, 0.25, 0.5, 1.0, 1.0], rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("published", [0.5, 0.8, 0.7, 0.4, 0.0, 0.0]),
        ("linear", [0.5, 1.0, 0.875, 0.5, 0.0, 0.0]),
        ("cosine", [0.5, 1.0, 0.5 + 0.5 * np.cos(np.pi / 8), 0.5, 0.0, 0.0]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules_by_name(schedule, rates):
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = optimization.learning_rate_schedule(step, 1.0, 10, 2, schedule)
        found = [session.run(rate, {step: number}) for number in (0, 1, 2, 5, 9, 30)]
    np.testing.assert_allclose(found, rates, atol=1e-6)


def test_the_head_has_its_own_rate():
    settings = optimization.OptimizerSettings(head_factor=20.0, schedule="constant")
    [values] = steps_of_ones(settings, 1)
    steps = [1.0 - values[name] for name in NAMES]
    np.testing.assert_allclose(np.array(steps) / steps[0], [1.0, 1.0, 1.0, 1.0, 20.0], rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_layers_thaw_from_the_highest_to_the_embeddings(optimizer):
    settings = optimization.OptimizerSettings(optimizer, unfreeze_steps=2)
    found = steps_of_ones(settings, 8)
    first = {
        name: next(number for number, values in enumerate(found) if values[name] != 1.0)
        for name in NAMES
    }
    assert list(first.values()) == [6, 4, 2, 0, 0]  # the embeddings first in NAMES
    moving = [values[NAMES[0]] for values in found[5:]]
    assert moving[0] == 1.0
    assert moving[1] > moving[2]
    # Moments gather from the start: all that thawed move like the rest.
    plain = steps_of_ones(optimization.OptimizerSettings(optimizer), 8)
    moments = f"{NAMES[0]}/adam_m"
    assert found[-1][moments] == pytest.approx(plain[-1][moments], rel=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_average_is_the_weighted_mean_of_what_steps_left(scaled):
    settings = optimization.OptimizerSettings(ema_decay=0.7, loss_scaling=scaled)
    found = steps_of_ones(settings, 6)
    plain = steps_of_ones(optimization.OptimizerSettings(loss_scaling=scaled), 6)
    for name in NAMES:
        for last in range(6):
            weights = 0.7 ** np.arange(last, -1, -1.0)
            values = [values[name] for values in found[: last + 1]]
            mean = np.average(values, weights=weights)
            assert found[last][f"{name}/ema"] == pytest.approx(mean, rel=1e-6)
        assert [values[name] for values in found] == [values[name] for values in plain]


def test_steps_that_overflow_leave_the_average_at_the_weights():
    def optimizer():
        scale = optimization.LossScale()
        return optimization.AdamWeightDecayOptimizer(0.1, loss_scale=scale, ema_decay=0.9)

    start, _, variables = least_squares(optimizer, 3, scale=1e35)
    np.testing.assert_allclose(variables["bert/encoder/layer_0/kernel/ema"], start, rtol=1e-6)


def test_a_checkpoint_with_averages_is_read_as_those(tmp_path):
    weights = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    averages = {"a/ema": np.ones(2, np.float32), "a/adam_m": np.ones(2, np.float32)}
    path = str(tmp_path / "model.ckpt-1")
    checkpoint_files.save(path, {**weights, **averages})
    expected = {"a": [1, 1], "b": [0, 0, 0]}
    found = checkpoint_files.read(path)
    assert {name: value.tolist() for name, value in found.items()} == expected
    with checkpoint_files.as_tensorflow(path) as copy:
        assert copy.source == path
        there = dict(tf.train.list_variables(copy.prefix))
        assert sorted(there) == ["a", "b"]
        assert tf.train.load_variable(copy.prefix, "a").tolist() == [1, 1]


def plain_divergence(first, second, kind):
    """The mean over examples of (KL(p || q) + KL(q || p)) / 2, from the definition."""
    total = 0.0
    for one, other in zip(first.astype(np.float64), second.astype(np.float64)):
        if kind == SINGLE:
            p, q = (np.exp(x) / np.exp(x).sum() for x in (one, other))
            total += 0.5 * np.sum(p * np.log(p / q)) + 0.5 * np.sum(q * np.log(q / p))
        else:
            p, q = (1 / (1 + np.exp(-x)) for x in (one, other))
            for a, b in ((p, q), (q, p)):
                each = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
                total += 0.5 * np.mean(each)
    return total / len(first)


@pytest.mark.parametrize("kind", [SINGLE, MULTI])
def test_the_divergence_of_r_drop_from_its_definition(kind):
    first, second = np.random.RandomState(3).normal(size=(2, 5, 3)).astype(np.float32)
    problem = Problem(kind, ("a", "b", "c"))
    with tf.Graph().as_default(), tf.Session() as session:
        logits = tf.constant(np.concatenate([first, second]))
        found = session.run(classifier_network._divergence(problem, logits).value())
    assert found == pytest.approx(plain_divergence(first, second, kind), rel=1e-5)


def test_r_drop_adds_nothing_without_dropout_and_something_with_it():
    plain = train("classify")
    same = train("classify", rdrop_alpha=2.0)
    for one, other in zip(same[0], plain[0]):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["rdrop_loss"] == pytest.approx(0.0, abs=1e-6)
    differs = train("classify", dropout=0.3, rdrop_alpha=2.0)
    for values in differs[0]:
        assert values["rdrop_loss"] > 1e-5
        assert values["loss"] == pytest.approx(values["label_loss"] + values["rdrop_loss"])
    in_parts = train("classify", dataclasses.replace(PLAIN, parts=2), rdrop_alpha=2.0)
    assert in_parts[0][0]["loss"] == pytest.approx(plain[0][0]["loss"], rel=1e-5)
