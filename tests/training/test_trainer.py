import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN

import modeling
import run_pretraining
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.compute import TPU_COMPUTE
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.options import CheckpointOptions, DeviceOptions
from bert_toolkit.pretraining.network import pretraining_network
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks.classification import classifier_network
from bert_toolkit.tasks.classification.schema import classification_schema
from bert_toolkit.training import estimator_api, input_pipeline, model_functions, trainer

pytestmark = pytest.mark.platform

CONFIG = modeling.BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))
WEIGHTS = checkpoint_files.Weights(str(GOLDEN / "model/bert_model.ckpt"), "golden")
SIZES = trainer.BatchSizes(16, 8, 8)
TPU = DeviceOptions(seed=1, use_tpu=True, num_tpu_cores=16, iterations_per_loop=5)
TRAINING = model_functions.Training(1e-3, 4, 1)


def test_configuration_of_a_run(tmp_path):
    config = trainer.run_config(str(tmp_path), DeviceOptions(seed=3), CheckpointOptions(9, 2, 1.5))
    assert (config.tf_random_seed, config.save_checkpoints_steps, config.model_dir) == (
        3,
        9,
        str(tmp_path),
    )
    assert (config.keep_checkpoint_max, config.keep_checkpoint_every_n_hours) == (2, 1.5)
    assert config.session_config.gpu_options.allow_growth
    assert config.save_summary_steps == 100
    assert config.session_config.intra_op_parallelism_threads == 0  # as many as TensorFlow takes


def test_threads_are_as_many_as_asked_for(tmp_path):
    def threads(**flags):
        config = trainer.run_config(None, DeviceOptions(**flags), CheckpointOptions())
        session = config.session_config
        return session.intra_op_parallelism_threads, session.inter_op_parallelism_threads

    assert threads() == (0, 0)
    assert threads(num_threads=3) == (3, 3)
    assert threads(num_threads=3, deterministic=True) == (3, 1)


def test_tpu_flags_make_a_tpu_estimator(tmp_path):
    def model_fn(features, labels, mode, params):
        raise AssertionError("not called when the Estimator is made")

    estimator = trainer.Trainer(model_fn, str(tmp_path), TPU, SIZES, CheckpointOptions(7)).estimator
    assert isinstance(estimator, estimator_api.load().tpu.TPUEstimator)
    tpu = estimator.config.tpu_config
    assert (tpu.iterations_per_loop, tpu.num_shards) == (5, 16)
    assert (
        tpu.per_host_input_for_training == estimator_api.load().tpu.InputPipelineConfig.PER_HOST_V2
    )
    assert (estimator.config.save_checkpoints_steps, estimator.config.tf_random_seed) == (7, 1)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_everything_a_tpu_computes_has_a_static_shape(tmp_path, pretraining_data, mode):
    schema = pretraining_schema(128, 20)
    reading = input_pipeline.Reading(repeat=mode == "train", seed=1, static_shapes=True)
    model_fn = model_functions.make(
        pretraining_network(CONFIG, True, TPU_COMPUTE), str(tmp_path), WEIGHTS, True, TRAINING
    )
    with tf.Graph().as_default() as graph:
        data = input_pipeline.RecordInput([str(pretraining_data)], schema, reading)(
            {"batch_size": 16}
        )
        features = tf.data.make_one_shot_iterator(data).get_next()
        before = len(graph.get_operations())
        spec = model_fn(features, None, mode, {})
        assert spec.scaffold_fn is not None
        shapes = {
            output.name: output.shape
            for operation in graph.get_operations()[before:]
            for output in operation.outputs
            if output.dtype.is_floating
        }
    assert [name for name, shape in shapes.items() if shape.rank == 4]  # attention is among them
    assert [name for name, shape in shapes.items() if not shape.is_fully_defined()] == []


@pytest.mark.slow
def test_the_tpu_path_runs_on_a_cpu(tmp_path, pretraining_data):
    """TPUEstimator without a TPU trains and evaluates the model function written for one."""
    schema = pretraining_schema(128, 20)
    model_fn = model_functions.make(
        pretraining_network(CONFIG, True, TPU_COMPUTE), str(tmp_path), WEIGHTS, False, TRAINING
    )
    estimator = estimator_api.load().tpu.TPUEstimator(
        model_fn,
        config=trainer.tpu_run_config(str(tmp_path), TPU, CheckpointOptions(7)),
        use_tpu=False,
        train_batch_size=16,
        eval_batch_size=50,
    )

    def data(repeat):
        reading = input_pipeline.Reading(repeat=repeat, seed=1, static_shapes=True)
        return input_pipeline.RecordInput([str(pretraining_data)], schema, reading)

    estimator.train(data(True), max_steps=4)
    static = estimator.evaluate(
        data(False), steps=4
    )  # 183 instances in 4 batches of 50: the last is filled
    options = run_pretraining.Options(
        output_dir=str(tmp_path),
        bert_config_file=str(GOLDEN / "model/bert_config.json"),
        eval_file=str(pretraining_data),
        do_eval=True,
    )
    plain = run_pretraining.run(options)
    for name in (
        "masked_lm_loss",
        "masked_lm_accuracy",
        "next_sentence_loss",
        "next_sentence_accuracy",
    ):
        assert static[name] == pytest.approx(plain[name], rel=1e-5)


@pytest.mark.parametrize("text", ["no json", "[1]"])
def test_a_broken_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG: not (JSON|a JSON object)"):
        trainer.choose_strategy()


def test_one_device_needs_no_strategy(monkeypatch, caplog):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    caplog.set_level("INFO")
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has GPUs")
    assert trainer.choose_strategy() is None
    assert "running on the CPU" in caplog.text


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("x; No space left on device", "no space left on device"),
        ("OOM when allocating tensor", "smaller batch size"),
        ("indices[3] = 99 is not in [0, 50)", "outside the model's vocabulary"),
        ("something else", None),
    ],
)
def test_errors_of_tensorflow_as_sentences(message, sentence):
    said = trainer._sentence(message, "out")
    assert said is None if sentence is None else sentence in said


def test_token_ids_outside_the_vocabulary_are_a_sentence(tmp_path):
    schema = classification_schema(8)
    writer = tfrecord.RecordWriter(str(tmp_path / "data"))
    for token in (5, 4000):  # the first record is looked at before, the second is not
        values = {
            "input_ids": [token],
            "input_mask": [1],
            "segment_ids": [0],
            "label_ids": [0],
            "is_real_example": [1],
        }
        writer.write(schema.encode(values))
    writer.close()
    model_fn = model_functions.make(
        classifier_network.network(CONFIG, Problem(SINGLE, ("0", "1"))),
        str(tmp_path / "out"),
        WEIGHTS,
        False,
        TRAINING,
    )
    runner = trainer.Trainer(model_fn, str(tmp_path / "out"), DeviceOptions(), SIZES)
    with pytest.raises(UserError, match="a token id is outside the model's vocabulary"):
        runner.train(
            input_pipeline.RecordInput(
                [str(tmp_path / "data")], schema, input_pipeline.Reading(True, 2, 1)
            ),
            2,
        )
