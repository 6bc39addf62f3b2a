"""Where TensorFlow's Estimator comes from: the only module that knows.

TensorFlow 2.12 to 2.15 bring Estimator with them. Later versions do not, but the wheel
tensorflow-estimator 2.15 runs on them if a few names that TensorFlow dropped are there while it is
imported. `load` supplies them and takes them away again, so that the rest of the process sees
TensorFlow as it was installed. docs/estimator.md says what each name is for.

Hooks, run contexts and the other parts of Estimator that are in `tf.train` are used from there.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

from bert_toolkit import tensorflow_start
from bert_toolkit.errors import UserError

# The modes a network is built in: the values of Estimator's ModeKeys.
TRAIN, EVAL, PREDICT = "train", "eval", "infer"

# TensorFlow 2.15 and before have Estimator; the wheel of 2.15 is the only one tried on later ones.
LAST_WITH_ESTIMATOR = (2, 15)
WHEEL_FOR_LATER = "2.15"


@functools.cache
def load() -> Any:
    """Returns Estimator's API, the module that `tf.compat.v1.estimator` was.

    Raises:
      UserError: the installed tensorflow-estimator is not one that runs on this TensorFlow.
    """
    import tensorflow as tf

    if _version(tf.__version__) <= LAST_WITH_ESTIMATOR:
        return tf.compat.v1.estimator
    _check_wheel(tf.__version__)
    try:
        # Estimator asks for Keras, and that for scikit-learn if it is there, with all of scipy.
        with _supplied(), tensorflow_start.without_modules("sklearn"):
            return importlib.import_module("tensorflow_estimator._api.v1.estimator")
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"TensorFlow {tf.__version__}: Estimator does not run on it ({error}); install"
            " 'tensorflow<2.22', or see docs/estimator.md for how to supply what is missing"
        ) from error


def _version(text: str) -> tuple[int, int]:
    """Returns the first two numbers of a version."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def _check_wheel(tensorflow: str) -> None:
    expected = f"pip install 'tensorflow-estimator=={WHEEL_FOR_LATER}.*'"
    try:
        wheel = importlib.metadata.version("tensorflow-estimator")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"TensorFlow {tensorflow} comes without Estimator, and the package"
            f" tensorflow-estimator is not installed: {expected}"
        ) from None
    if _version(wheel) != _version(WHEEL_FOR_LATER):
        raise UserError(
            f"tensorflow-estimator {wheel} beside TensorFlow {tensorflow}: expected"
            f" {WHEEL_FOR_LATER}: {expected}"
        )


@contextlib.contextmanager
def _supplied() -> Iterator[None]:
    """Gives TensorFlow's private modules what the wheel imports, for the time of a block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_estimator_as_api_name())
        for name, make in _MODULES.items():
            stack.enter_context(_module(name, make))
        yield


@contextlib.contextmanager
def _estimator_as_api_name() -> Iterator[None]:
    """Lets the wheel export its symbols under the API name "estimator"."""
    from tensorflow.python.util import tf_export

    if hasattr(tf_export, "ESTIMATOR_API_NAME"):
        yield
        return
    tables = (tf_export.API_ATTRS, tf_export.API_ATTRS_V1)
    tf_export.ESTIMATOR_API_NAME = "estimator"
    for table, suffix in zip(tables, ("", "_v1")):
        attributes = table[tf_export.TENSORFLOW_API_NAME]
        table["estimator"] = type(attributes)(
            f"_estimator_api_names{suffix}", f"_estimator_api_constants{suffix}"
        )
    try:
        yield
    finally:
        del tf_export.ESTIMATOR_API_NAME
        for table in tables:
            del table["estimator"]


@contextlib.contextmanager
def _module(name: str, make: Any) -> Iterator[None]:
    """Puts a module that TensorFlow lacks in its place for the time of a block."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    else:  # this TensorFlow still has it
        yield
        return
    parent_name, _, own_name = name.rpartition(".")
    parent = importlib.import_module(parent_name)
    sys.modules[name] = make()
    setattr(parent, own_name, sys.modules[name])
    try:
        yield
    finally:
        del sys.modules[name]
        delattr(parent, own_name)


def _estimator_training() -> types.ModuleType:
    """Returns the functions that run an Estimator on several hosts."""
    from bert_toolkit.training import estimator_training

    return estimator_training


def _tpu_embedding() -> types.ModuleType:
    """Returns optimizer parameters of TPU embeddings, classes that the wheel only asks about.

    Without an `embedding_config_spec`, which BERT does not use, nothing else of them is needed.
    """
    module = types.ModuleType("tensorflow.python.tpu.tpu_embedding")
    for optimizer in (
        "Adagrad",
        "Adam",
        "Ftrl",
        "Momentum",
        "ProximalAdagrad",
        "RMSProp",
        "StochasticGradientDescent",
    ):
        name = f"{optimizer}Parameters"
        setattr(module, name, type(name, (), {}))
    return module


def _tpu_session_support() -> types.ModuleType:
    """Returns hooks of TPUEstimator's training that do nothing.

    The dropped ones noticed that a TPU's hosts are about to be shut down, and saved a checkpoint.
    Without them, a run that was shut down goes on from its last regular checkpoint.
    """
    import tensorflow.compat.v1 as tf

    class GracefulShutdownHook(tf.train.SessionRunHook):
        def __init__(self, checkpoint_prefix, saver=None, on_shutdown_hooks=None):
            del checkpoint_prefix, saver, on_shutdown_hooks

    class Nothing:
        pass

    def start_worker_watchdog(session, shutdown_timeout):
        del session, shutdown_timeout
        raise UserError(
            "TF_TPU_WATCHDOG_TIMEOUT: TensorFlow has no watchdog of TPU workers any more; unset it"
        )

    module = types.ModuleType("tensorflow.python.tpu.session_support")
    module.GracefulShutdownHook = GracefulShutdownHook  # type: ignore[attr-defined]
    module.start_worker_watchdog = start_worker_watchdog  # type: ignore[attr-defined]
    for name in ("ResetComputation", "ShutdownAllWorkers", "ShutdownLameWorkers"):
        setattr(module, name, Nothing)
    return module


_MODULES = {
    "tensorflow.python.distribute.estimator_training": _estimator_training,
    "tensorflow.python.tpu.tpu_embedding": _tpu_embedding,
    "tensorflow.python.tpu.tpu_embedding_gradient": lambda: types.ModuleType(
        "tensorflow.python.tpu.tpu_embedding_gradient"
    ),
    "tensorflow.python.tpu.session_support": _tpu_session_support,
}
