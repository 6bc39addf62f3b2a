import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT

import modeling
import optimization
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.compute import TPU_COMPUTE, ComputeOptions
from bert_toolkit.pretraining.network import pretraining_network
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks.classification import classifier_network
from bert_toolkit.training import model_functions
from bert_toolkit.training.estimator_api import TRAIN

pytestmark = pytest.mark.platform

BINARY = Problem(SINGLE, ("0", "1"))
LOSSES = json.loads((GOLDEN / "training_losses.json").read_text())


@pytest.mark.parametrize("name", ["warmup", "no_warmup"])
def test_golden_trajectories(name):
    golden = dict(np.load(GOLDEN / f"optimizer_{name}.npz"))
    names = {"kernel": "dense/kernel", "bias": "dense/bias", "gamma": "LayerNorm/gamma"}
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {key: tf.get_variable(names[key], initializer=golden[key][0]) for key in names}
        predicted = (tf.matmul(golden["x"], variables["kernel"]) + variables["bias"]) * variables[
            "gamma"
        ]
        loss = 5 * tf.reduce_mean(tf.square(predicted - golden["y"]))
        step = optimization.create_optimizer(
            loss,
            float(golden["learning_rate"]),
            int(golden["num_train_steps"]),
            int(golden["num_warmup_steps"]),
        )
        session.run(tf.global_variables_initializer())
        for index in range(1, len(golden["kernel"])):
            session.run(step)
            for key, variable in variables.items():
                np.testing.assert_allclose(
                    session.run(variable), golden[key][index], rtol=1e-5, atol=1e-7
                )
        assert session.run(tf.train.get_global_step()) == len(golden["kernel"]) - 1


@pytest.mark.parametrize(
    "compute",
    [
        ComputeOptions(),
        pytest.param(ComputeOptions(remove_padding=False), marks=pytest.mark.slow),
        pytest.param(TPU_COMPUTE, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["pretrain", "classify"])
def test_golden_losses_through_the_model_functions_of_the_stages(kind, compute, tmp_path):
    batch = dict(np.load(GOLDEN / "model_outputs.npz"))
    expected = LOSSES[kind]
    config = modeling.BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))
    names = [field.name for field in pretraining_schema(128, 20).fields]
    # Operations in one order: where a gradient is nothing but rounding, Adam makes much of another
    # order of its sums.
    one_order = tf.ConfigProto(inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.Session(config=one_order) as session:
        features = {name: tf.constant(batch[name]) for name in names}
        network = pretraining_network(config, True, compute)
        if kind == "classify":
            features["label_ids"] = features["next_sentence_labels"][:, 0]
            features["is_real_example"] = tf.ones([8], tf.int32)
            network = classifier_network.network(config, BINARY, compute)
        prefix = str(GOLDEN / "model/bert_model.ckpt")
        training = model_functions.Training(
            expected["learning_rate"], expected["num_train_steps"], expected["num_warmup_steps"]
        )
        model_fn = model_functions.make(
            network, str(tmp_path), checkpoint_files.Weights(prefix, prefix), training=training
        )
        spec = model_fn(features, None, TRAIN, {})
        session.run(tf.global_variables_initializer())
        for variable in tf.trainable_variables():
            if variable.op.name == "output_weights":
                session.run(variable.assign(np.linspace(-0.1, 0.1, 64).reshape(2, 32)))
        losses = [session.run([spec.loss, spec.train_op])[0] for _ in range(20)]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "total", "warmup", "rate"),
    [
        (0, 10, 0, 0.9),
        (9, 10, 0, 0.0),
        (20, 10, 0, 0.0),
        (0, 10, 4, 0.25),
        (2, 10, 4, 0.75),
        (3, 10, 4, 0.6),
        (4, 10, 4, 0.5),
    ],
)
def test_schedule(step, total, warmup, rate):
    with tf.Graph().as_default(), tf.Session() as session:
        computed = session.run(
            optimization.learning_rate_schedule(tf.constant(step, tf.int64), 1.0, total, warmup)
        )
    assert computed == pytest.approx(rate, abs=1e-6)


def test_adamw_arrives():
    with tf.Graph().as_default(), tf.Session() as session:
        weights = tf.get_variable("w", initializer=[0.1, -0.2, -0.1])
        loss = tf.reduce_mean(tf.square(tf.constant([0.4, 0.2, -0.5]) - weights))
        optimizer = optimization.AdamWeightDecayOptimizer(learning_rate=0.2)
        step = optimizer.apply_gradients(
            [(tf.gradients(loss, weights)[0], weights)], tf.train.get_or_create_global_step()
        )
        session.run(tf.global_variables_initializer())
        for _ in range(100):
            session.run(step)
        assert np.abs(session.run(weights) - [0.4, 0.2, -0.5]).max() < 1e-2


def train(loss_of, initial, steps=5, **settings):
    """Trains variables by name; returns them and the names of all variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {
            name: tf.get_variable(name, initializer=np.float32(value))
            for name, value in initial.items()
        }
        optimizer = optimization.AdamWeightDecayOptimizer(0.1, **settings)
        gradients = optimizer.compute_gradients(loss_of(variables), list(variables.values()))
        step = optimizer.apply_gradients(gradients, tf.train.get_or_create_global_step())
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            session.run(step)
        names = {variable.op.name for variable in tf.global_variables()}
        return {name: session.run(variable) for name, variable in variables.items()}, names


def test_slots_have_the_published_names():
    _, names = train(lambda v: tf.reduce_sum(v["a/kernel"] ** 2), {"a/kernel": [1.0, 2.0]})
    assert names == {"a/kernel", "a/kernel/adam_m", "a/kernel/adam_v", "global_step"}


def test_decay_spares_the_excluded():
    def loss(variables):
        return tf.reduce_sum(0.0 * variables["kernel"] + 0.0 * variables["bias"])

    settings = {"weight_decay_rate": 0.5, "exclude_from_weight_decay": ["bias"]}
    weights, _ = train(loss, {"kernel": [1.0], "bias": [1.0]}, steps=1, **settings)
    assert weights["kernel"] == pytest.approx(0.95)
    assert weights["bias"] == 1.0


def test_gradients_of_gathered_rows_count_like_dense_ones():
    table = np.random.RandomState(0).normal(size=[7, 3])
    rows = [1, 4, 1, 6]

    def gathered(variables):
        return tf.reduce_sum(tf.gather(variables["table"], rows) ** 3)

    def multiplied(variables):
        return tf.reduce_sum(tf.matmul(tf.one_hot(rows, 7), variables["table"]) ** 3)

    settings = {"weight_decay_rate": 0.01}
    one, other = (
        train(loss, {"table": table}, **settings)[0]["table"] for loss in (gathered, multiplied)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_equations_in_numpy():
    random = np.random.RandomState(1)
    start, target = random.normal(size=[4, 3]), random.normal(size=[4, 3])
    w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for _ in range(5):
        gradient = 10 * 2 * (w - target)
        gradient *= min(1.0, 1.0 / np.sqrt((gradient**2).sum()))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - 0.1 * (m / (np.sqrt(v) + 1e-6) + 0.01 * w)
    goal = np.float32(target)
    settings = {"weight_decay_rate": 0.01, "clip_norm": 1.0}
    ours, _ = train(
        lambda variables: 10 * tf.reduce_sum((variables["w"] - goal) ** 2), {"w": start}, **settings
    )
    np.testing.assert_allclose(ours["w"], w, rtol=1e-5)


def test_inside_a_cross_shard_optimizer_what_is_clipped_is_the_sum_over_cores():
    # The sum itself runs on TPUs only; the graph shows what it is made of.
    with tf.Graph().as_default() as graph:
        loss = tf.reduce_sum(tf.get_variable("w", initializer=[3.0, 4.0]) ** 2)
        optimization.create_optimizer(loss, 0.1, 10, 2, use_tpu=True)
        operations = graph.get_operations()
    norms = [operation for operation in operations if operation.type == "L2Loss"]
    assert [norm.inputs[0].op.type for norm in norms] == ["CrossReplicaSum"]
    assert [operation.type for operation in operations].count("ResourceApplyAdam") == 1


MIRRORED = """
import sys
import numpy as np, tensorflow.compat.v1 as tf
import optimization
from bert_toolkit.options import CheckpointOptions, DeviceOptions
from bert_toolkit.training import estimator_api, trainer

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
x = np.random.RandomState(0).normal(size=[8, 3]).astype("float32")
y = x @ np.float32([[1.0], [-2.0], [0.5]]) * 10

def train(strategy, batch_size):
    def model_fn(features, labels, mode):
        kernel = tf.get_variable("kernel", [3, 1], initializer=tf.ones_initializer())
        table = tf.get_variable("table", [8, 1], initializer=tf.zeros_initializer())
        bias = tf.get_variable("bias", [1], initializer=tf.ones_initializer())
        predicted = tf.matmul(features["x"], kernel) + tf.gather(table, features["row"]) + bias
        loss = tf.reduce_mean((predicted - labels) ** 2)
        settings = optimization.OptimizerSettings(ema_decay=0.9)
        step = optimization.create_optimizer(loss, 0.05, 20, 2, settings=settings)
        return estimator_api.load().EstimatorSpec(mode, loss=loss, train_op=step)

    config = trainer.run_config(None, DeviceOptions(seed=1), CheckpointOptions(), strategy)
    estimator = estimator_api.load().Estimator(model_fn, config=config)
    rows = np.arange(8, dtype="int32")
    def data():
        return tf.data.Dataset.from_tensor_slices(({"x": x, "row": rows}, y)).repeat().batch(batch_size)
    estimator.train(data, max_steps=10)
    names = ("kernel", "table", "bias", "kernel/ema", "table/ema")
    return np.concatenate([estimator.get_variable_value(name).ravel() for name in names])

one = train(None, 8)
two = train(trainer.mirrored(["/cpu:0", "/cpu:1"]), 4)
print(np.abs(one - two).max(), np.abs(one).max())
sys.exit(not np.abs(one - two).max() < 1e-5)
"""


@pytest.mark.slow
def test_two_replicas_train_as_one_does_on_the_whole_batch():
    result = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
