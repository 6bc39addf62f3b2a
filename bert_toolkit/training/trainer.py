"""The one place where an Estimator is made: for a CPU, GPUs, several hosts, or a TPU.

Batch sizes are global: what all devices together take in a step.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging
from tensorflow import config as tf2_config

from bert_toolkit.cli import EXIT_TERMINATED
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.options import CheckpointOptions, DeviceOptions
from bert_toolkit.training import cluster, estimator_api, hooks, input_state, precision
from bert_toolkit.training.mixed_input import TrainingInput


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """Sequences in a batch, over all devices."""

    train: int = 1
    evaluate: int = 1
    predict: int = 1


class Trainer:
    """An Estimator with its batch sizes; its errors are sentences."""

    def __init__(
        self,
        model_fn: Callable,
        model_dir: Optional[str],
        device: DeviceOptions,
        sizes: BatchSizes,
        checkpoints: CheckpointOptions = CheckpointOptions(),  # noqa: B008 (it is frozen)
        quiet: bool = False,
    ):
        """Makes the Estimator.

        Args:
          model_fn: (features, labels, mode, params) -> TPUEstimatorSpec.
          model_dir: where checkpoints are kept; None for an Estimator that only predicts.
          device: where to run.
          sizes: global batch sizes.
          checkpoints: how often they are written, and how many are kept.
          quiet: do not say where it runs.
        """
        self.sizes = sizes
        self._use_tpu = device.use_tpu
        self._profile_steps = checkpoints.profile_steps
        if device.deterministic:
            tf2_config.experimental.enable_op_determinism()
        if model_dir is None and not device.use_tpu:
            # Only to predict: on one device, by one host, perhaps while others wait in training.
            with cluster.left_out():
                choose_strategy(device.require_gpu, quiet)
                self.strategy = None
                config = run_config(None, device, checkpoints)
        elif device.use_tpu:
            self.strategy = None
            config = tpu_run_config(model_dir, device, checkpoints)
        else:
            self.strategy = choose_strategy(device.require_gpu, quiet)
            precision.warn_if_slow(device.precision)
            config = run_config(model_dir, device, checkpoints, self.strategy)
        self.estimator = make_estimator(model_fn, config, sizes, device.use_tpu)
        # Evaluation and prediction take one device, on the first of several hosts.
        self._alone = self.estimator
        if self.strategy is not None:
            with cluster.left_out():
                config = run_config(model_dir, device, checkpoints)
                self._alone = make_estimator(model_fn, config, sizes, False)

    def train(
        self,
        input_fn: TrainingInput,
        max_steps: int,
        listeners: Sequence[tf.train.CheckpointSaverListener] = (),
    ) -> None:
        """Trains up to `max_steps`, counted from the start of the run in `model_dir`.

        `listeners` are told of each checkpoint, but not on several hosts, where an Estimator calls
        none.
        """
        try:
            self._train(input_fn, max_steps, listeners)
        except input_state.PlaceLost as error:
            logging.warning("the place in the data cannot be restored (%s)", error)
            self._train(input_fn, max_steps, listeners, place_lost=True)

    def _train(self, input_fn, max_steps: int, listeners, place_lost: bool = False) -> None:
        model_dir, batch_size = self.estimator.model_dir, self.sizes.train
        keeps_place = self.strategy is None and not self._use_tpu
        input_fn = input_state.going_on(input_fn, model_dir, batch_size, keeps_place, place_lost)
        with self._errors_as_sentences(input_fn):
            replicas = self.strategy.num_replicas_in_sync if self.strategy else 1
            bound = self._bind(input_fn, self.sizes.train, replicas)
            more_hooks = (
                [hooks.Profile(model_dir, *self._profile_steps)] if self._profile_steps else []
            )
            if cluster.size() > 1:
                self._train_with_others(bound, max_steps, more_hooks)
            elif keeps_place:
                state = input_state.InputState(model_dir, input_fn, batch_size)
                restore = input_state.RestoreInput(state)
                more_hooks = [restore, *more_hooks]
                self._train_until_stopped(bound, max_steps, more_hooks, [state, *listeners])
            else:
                self._train_until_stopped(bound, max_steps, more_hooks, listeners)

    def _train_with_others(self, input_fn, max_steps: int, more_hooks) -> None:
        """Trains on several hosts: the only way that an Estimator does."""
        api = estimator_api.load()
        with cluster.Watch() as watch:
            api.train_and_evaluate(
                self.estimator,
                api.TrainSpec(
                    input_fn,
                    max_steps,
                    hooks=[*more_hooks, hooks.AtLastStep(max_steps, watch.stop)],
                ),
                # For a host whose task is "evaluator"; there is none.
                api.EvalSpec(input_fn, steps=1),
            )

    def _train_until_stopped(self, input_fn, max_steps: int, more_hooks, listeners) -> None:
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
            results = self._alone.evaluate(
                self._bind(input_fn, self.sizes.evaluate, 1), steps=steps, hooks=[progress]
            )
        if not progress.batches:
            raise UserError(f"{what}: no batch to evaluate")
        return results

    def predict(self, input_fn: Callable) -> Iterator[dict[str, Any]]:
        """Yields the predictions of a batch after the other, as arrays."""
        with self._errors_as_sentences(input_fn):
            yield from self._alone.predict(
                self._bind(input_fn, self.sizes.predict, 1), yield_single_examples=False
            )

    def _bind(self, input_fn: Callable, batch_size: int, replicas: int) -> Callable:
        """Gives the input function a replica's batch size; TPUEstimator does so itself."""
        if self._use_tpu:
            return input_fn
        if batch_size % replicas:
            raise UserError(
                f"--train_batch_size={batch_size} cannot be shared by {replicas} devices; pass a"
                " multiple"
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
        except tf.train.NanLossDuringTrainingError as error:
            latest = tf.train.latest_checkpoint(model_dir)
            raise UserError(
                f"the loss is not a number any more; the last checkpoint is {latest};"
                " train with a smaller --learning_rate or a longer warm-up"
            ) from error
        except tf.errors.DataLossError as error:
            paths = getattr(input_fn, "paths", ())
            raise UserError(tfrecord.first_damage(paths) or _first_line(error)) from error
        except tf.errors.OpError as error:
            sentence = _sentence(str(error.message), model_dir)
            if sentence is None:
                raise
            raise UserError(sentence) from error


def make_estimator(model_fn: Callable, config: Any, sizes: BatchSizes, use_tpu: bool) -> Any:
    """Returns an Estimator, or with `use_tpu` a TPUEstimator; `config` is a RunConfig for it."""
    if use_tpu:
        return estimator_api.load().tpu.TPUEstimator(
            model_fn=model_fn,
            config=config,
            use_tpu=True,
            train_batch_size=sizes.train,
            eval_batch_size=sizes.evaluate,
            predict_batch_size=sizes.predict,
        )

    def plain_model_fn(features, labels, mode, params):
        return model_fn(features, labels, mode, params).as_estimator_spec()

    return estimator_api.load().Estimator(plain_model_fn, config=config, params={})


@cluster.left_out_if_alone()  # Estimators take no cluster of one worker
def run_config(
    model_dir: Optional[str],
    device: DeviceOptions,
    checkpoints: CheckpointOptions,
    strategy: Any = None,
) -> Any:
    """Returns the RunConfig of a run on CPU or GPUs."""
    # The first session makes the threads of the process; all sessions of a run ask for the same.
    session_config = tf.ConfigProto(
        allow_soft_placement=True,
        intra_op_parallelism_threads=device.num_threads,
        inter_op_parallelism_threads=device.num_threads,
    )
    if device.deterministic:
        # Independent operations then run in one order, and sums of their results are alike.
        session_config.inter_op_parallelism_threads = 1
    session_config.gpu_options.allow_growth = True  # leave to others what is not needed
    if device.xla:
        os.environ["TF_XLA_FLAGS"] = "--tf_xla_cpu_global_jit"  # read when it is first needed
        optimizer_options = session_config.graph_options.optimizer_options
        optimizer_options.global_jit_level = tf.OptimizerOptions.ON_2
    return estimator_api.load().RunConfig(
        model_dir=model_dir,
        tf_random_seed=device.seed,
        **checkpoints.run_config(),
        log_step_count_steps=None,  # our own hook shows the progress
        train_distribute=strategy,
        session_config=session_config,
    )


@cluster.left_out_if_alone()
def tpu_run_config(
    model_dir: Optional[str], device: DeviceOptions, checkpoints: CheckpointOptions
) -> Any:
    """Returns the RunConfig of a run on a TPU."""
    tpu = estimator_api.load().tpu
    resolver = None
    if device.tpu_name:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            device.tpu_name, zone=device.tpu_zone, project=device.gcp_project
        )
    return tpu.RunConfig(
        cluster=resolver,
        master=device.master,
        model_dir=model_dir,
        tf_random_seed=device.seed,
        **checkpoints.run_config(),
        tpu_config=tpu.TPUConfig(
            iterations_per_loop=device.iterations_per_loop,
            num_shards=device.num_tpu_cores,
            per_host_input_for_training=tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )


def choose_strategy(require_gpu: bool = False, quiet: bool = False):
    """Returns the distribution strategy for the machines and GPUs there are; None for one device.

    TF_CONFIG names the hosts of a cluster, as TensorFlow defines it; otherwise all visible GPUs
    are used.

    Raises:
      UserError: there is no GPU, and one is required.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if require_gpu and not gpus:
        raise UserError(
            "--require_gpu: TensorFlow sees no GPU; are its driver and CUDA's libraries there (pip"
            " install 'bert-toolkit[gpu]'), and CUDA_VISIBLE_DEVICES not empty?"
        )
    here = f"{len(gpus)} GPUs" if len(gpus) > 1 else "a GPU" if gpus else ""
    here = here or f"the CPU ({os.cpu_count()} cores)"
    if cluster.size() > 1:
        if not quiet:
            logging.info("running on %d hosts (TF_CONFIG), this one on %s", cluster.size(), here)
        return tf.distribute.experimental.MultiWorkerMirroredStrategy()
    if not quiet:
        logging.info("running on %s", here)
    return mirrored([f"/gpu:{index}" for index in range(len(gpus))]) if len(gpus) > 1 else None


def mirrored(devices: list[str]):
    """Returns a strategy that keeps a copy of the model on each device of this host."""
    # On CPU devices the default collectives wait for each other for ever.
    on_cpu = any("cpu" in device.lower() for device in devices)
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice() if on_cpu else None
    )


def _sentence(message: str, model_dir: Optional[str]) -> Optional[str]:
    """Returns what a TensorFlow error means to a user; None if it says nothing to us."""
    if "No space left on device" in message:
        return f"{model_dir}: no space left on device; checkpoints written before are whole"
    if "OOM when allocating" in message or "failed to allocate memory" in message:
        return (
            "out of memory on the device; use a smaller batch size (with --batch_tokens=0 if it has"
            " that flag), or shorter sequences"
        )
    if "Can't parse serialized Example" in message or "parsing" in message and "Example" in message:
        return (
            "a record does not fit the flags; were all input files made with the same"
            " --max_seq_length?"
        )
    if "not found in checkpoint" in message:
        return (
            f"{model_dir}: its checkpoint was trained with other flags (--freeze, --ema_decay, or"
            " those of the model); pass the same, or another --output_dir with this one as"
            " --init_checkpoint"
        )
    if "is not in [0, " in message:
        return (
            "a token id is outside the model's vocabulary; was the data made with the model's own?"
        )
    return None


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).splitlines()[0]
