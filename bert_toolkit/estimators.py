"""The one place where an Estimator is made: for a CPU, GPUs, several hosts, or a TPU.

Batch sizes are global: what all devices together take in a step.
"""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging
from tensorflow import config as tf2_config

from bert_toolkit import hooks, input_state, records
from bert_toolkit.cli import EXIT_TERMINATED, CheckpointOptions, DeviceOptions
from bert_toolkit.errors import UserError


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """Sequences in a batch, over all devices."""

    train: int = 1
    evaluate: int = 1
    predict: int = 1


class Runner:
    """An Estimator with its batch sizes; its errors are sentences."""

    def __init__(
        self,
        model_fn: Callable,
        model_dir: Optional[str],
        device: DeviceOptions,
        sizes: BatchSizes,
        checkpoints: CheckpointOptions = CheckpointOptions(),  # noqa: B008 (it is frozen)
    ):
        """Makes the Estimator.

        Args:
          model_fn: (features, labels, mode, params) -> TPUEstimatorSpec.
          model_dir: where checkpoints are kept; None for an Estimator that only predicts.
          device: where to run.
          sizes: global batch sizes.
          checkpoints: how often they are written, and how many are kept.
        """
        self.sizes = sizes
        self.strategy = None if device.use_tpu else choose_strategy()
        self._use_tpu = device.use_tpu
        if device.deterministic:
            tf2_config.experimental.enable_op_determinism()
        if device.use_tpu:
            config = tpu_run_config(model_dir, device, checkpoints)
        else:
            config = run_config(model_dir, device, checkpoints, self.strategy)
        self.estimator = make_estimator(model_fn, config, sizes, device.use_tpu)

    def train(self, input_fn: records.RecordInput, max_steps: int) -> None:
        """Trains up to `max_steps`, counted from the start of the run in `model_dir`."""
        model_dir, batch_size = self.estimator.model_dir, self.sizes.train
        keeps_place = self.strategy is None and not self._use_tpu
        input_fn = input_state.going_on(input_fn, model_dir, batch_size, keeps_place)
        with self._errors_as_sentences(input_fn):
            bound = self._bind(input_fn, self.sizes.train)
            if _cluster_size() > 1:
                # With several hosts an Estimator trains only this way; the second part is for a
                # host whose task is "evaluator".
                tf.estimator.train_and_evaluate(
                    self.estimator,
                    tf.estimator.TrainSpec(bound, max_steps=max_steps),
                    tf.estimator.EvalSpec(bound, steps=1),
                )
            elif keeps_place:
                state = input_state.InputState(model_dir, input_fn.fingerprint(batch_size))
                restore = input_state.RestoreInput(state)
                self._train_until_stopped(bound, max_steps, [restore], [state])
            else:
                self._train_until_stopped(bound, max_steps, [], [])

    def _train_until_stopped(self, input_fn, max_steps: int, more_hooks: list, listeners: list):
        """Trains; a signal ends it with a checkpoint, and the program as signals do."""
        with hooks.StopOnSignal() as stop:
            self.estimator.train(
                input_fn, [*more_hooks, stop], max_steps=max_steps, saving_listeners=listeners
            )
        if stop.received == signal.SIGINT:
            raise KeyboardInterrupt
        if stop.received == signal.SIGTERM:
            latest = tf.train.latest_checkpoint(self.estimator.model_dir)
            logging.info("saved %s; the same command goes on from it", latest)
            raise SystemExit(EXIT_TERMINATED)

    def evaluate(
        self, input_fn: Callable, what: str, steps: Optional[int] = None
    ) -> dict[str, Any]:
        """Returns the metrics over `steps` batches, or over all the input."""
        progress = hooks.EvaluationProgress(what, steps)
        with self._errors_as_sentences(input_fn):
            results = self.estimator.evaluate(
                self._bind(input_fn, self.sizes.evaluate), steps=steps, hooks=[progress]
            )
        if not progress.batches:
            raise UserError(f"{what}: no batch to evaluate")
        return results

    def predict(self, input_fn: Callable) -> Iterator[dict[str, Any]]:
        """Yields the predictions of a batch after the other, as arrays."""
        with self._errors_as_sentences(input_fn):
            yield from self.estimator.predict(
                self._bind(input_fn, self.sizes.predict), yield_single_examples=False
            )

    def _bind(self, input_fn: Callable, batch_size: int) -> Callable:
        """Gives the input function a replica's batch size; TPUEstimator does so itself."""
        if self._use_tpu:
            return input_fn
        replicas = self.strategy.num_replicas_in_sync if self.strategy else 1
        if batch_size % replicas:
            raise UserError(
                f"a batch of {batch_size} cannot be shared by {replicas} devices; choose a multiple"
            )

        def bound(input_context=None):
            return input_fn({"batch_size": batch_size // replicas}, input_context)

        return bound

    @contextlib.contextmanager
    def _errors_as_sentences(self, input_fn: Callable) -> Iterator[None]:
        """Turns errors that a user can mend into UserErrors, and tells Ctrl-C what is saved."""
        model_dir = self.estimator.model_dir
        try:
            yield
        except KeyboardInterrupt:
            latest = tf.train.latest_checkpoint(model_dir)
            kept = (
                f"{latest} is the last checkpoint; the same command goes on from it"
                if latest
                else "nothing was saved"
            )
            raise KeyboardInterrupt(kept) from None
        except tf.estimator.NanLossDuringTrainingError as error:
            latest = tf.train.latest_checkpoint(model_dir)
            raise UserError(
                f"the loss is not a number any more; the last checkpoint is {latest};"
                " train with a smaller --learning_rate or a longer warm-up"
            ) from error
        except tf.errors.DataLossError as error:
            paths = getattr(input_fn, "paths", ())
            raise UserError(records.first_damage(paths) or _first_line(error)) from error
        except tf.errors.OpError as error:
            sentence = _sentence(str(error.message), model_dir)
            if sentence is None:
                raise
            raise UserError(sentence) from error


def make_estimator(
    model_fn: Callable, config: tf.estimator.RunConfig, sizes: BatchSizes, use_tpu: bool
):
    """Returns an Estimator, or with `use_tpu` a TPUEstimator."""
    if use_tpu:
        return tf.estimator.tpu.TPUEstimator(
            model_fn=model_fn,
            config=config,
            use_tpu=True,
            train_batch_size=sizes.train,
            eval_batch_size=sizes.evaluate,
            predict_batch_size=sizes.predict,
        )

    def plain_model_fn(features, labels, mode, params):
        return model_fn(features, labels, mode, params).as_estimator_spec()

    return tf.estimator.Estimator(plain_model_fn, config=config, params={})


def run_config(
    model_dir: Optional[str],
    device: DeviceOptions,
    checkpoints: CheckpointOptions,
    strategy: Any = None,
) -> tf.estimator.RunConfig:
    """Returns the configuration of a run on CPU or GPUs."""
    session_config = tf.ConfigProto(allow_soft_placement=True)
    if device.deterministic:
        # Independent operations then run in one order, and sums of their results are alike.
        session_config.inter_op_parallelism_threads = 1
    session_config.gpu_options.allow_growth = True  # leave to others what is not needed
    return tf.estimator.RunConfig(
        model_dir=model_dir,
        tf_random_seed=device.seed,
        **checkpoints.run_config(),
        log_step_count_steps=None,  # our own hook shows the progress
        train_distribute=strategy,
        session_config=session_config,
    )


def tpu_run_config(
    model_dir: Optional[str], device: DeviceOptions, checkpoints: CheckpointOptions
) -> tf.estimator.RunConfig:
    """Returns the configuration of a run on a TPU."""
    resolver = None
    if device.tpu_name:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            device.tpu_name, zone=device.tpu_zone, project=device.gcp_project
        )
    return tf.estimator.tpu.RunConfig(
        cluster=resolver,
        master=device.master,
        model_dir=model_dir,
        tf_random_seed=device.seed,
        **checkpoints.run_config(),
        tpu_config=tf.estimator.tpu.TPUConfig(
            iterations_per_loop=device.iterations_per_loop,
            num_shards=device.num_tpu_cores,
            per_host_input_for_training=tf.estimator.tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )


def choose_strategy():
    """Returns the distribution strategy for the machines and GPUs there are; None for one device.

    TF_CONFIG names the hosts of a cluster, as TensorFlow defines it; otherwise all visible GPUs
    are used.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if _cluster_size() > 1:
        logging.info("running on %d hosts (TF_CONFIG)", _cluster_size())
        return tf.distribute.experimental.MultiWorkerMirroredStrategy()
    if len(gpus) > 1:
        logging.info("running on %d GPUs", len(gpus))
        return mirrored([f"/gpu:{index}" for index in range(len(gpus))])
    logging.info("running on %s", "a GPU" if gpus else f"the CPU ({os.cpu_count()} cores)")
    return None


def mirrored(devices: list[str]):
    """Returns a strategy that keeps a copy of the model on each device of this host."""
    # On CPU devices the default collectives wait for each other for ever.
    on_cpu = any("cpu" in device.lower() for device in devices)
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice() if on_cpu else None
    )


def _cluster_size() -> int:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(cluster.get(role, [])) for role in ("chief", "worker"))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG: not the JSON object that TensorFlow expects ({error})"
        ) from None


def _sentence(message: str, model_dir: Optional[str]) -> Optional[str]:
    """Returns what a TensorFlow error means to a user; None if it says nothing to us."""
    if "No space left on device" in message:
        return f"{model_dir}: no space left on device; checkpoints written before are whole"
    if "OOM when allocating" in message or "failed to allocate memory" in message:
        return "out of memory on the device; use a smaller batch size or --max_seq_length"
    if "Can't parse serialized Example" in message or "parsing" in message and "Example" in message:
        return (
            "a record does not fit the flags; were all input files made with the same"
            " --max_seq_length?"
        )
    if "is not in [0, " in message:
        return (
            "a token id is outside the model's vocabulary; was the data made with the model's own?"
        )
    return None


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).splitlines()[0]
