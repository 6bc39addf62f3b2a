"""From a stage's network to an Estimator's model function: weights, training step, display."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging

import modeling
import optimization
from bert_toolkit.checkpoints import checkpoint_files, constants, restore
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.training import cluster, estimator_api, hooks, output_dir, training_step
from bert_toolkit.training.estimator_api import EVAL, PREDICT, TRAIN
from bert_toolkit.training.outputs import Head, Network, Outputs
from bert_toolkit.training.training_step import Training


def encoder(
    config: modeling.BertConfig,
    features: Mapping[str, tf.Tensor],
    mode: str,
    compute: ComputeOptions,
    with_pooler: bool = True,
) -> modeling.BertModel:
    """Builds BERT over the features that every stage has, with dropout if `mode` is TRAIN."""
    return modeling.BertModel(
        config,
        is_training=mode == TRAIN,
        input_ids=features["input_ids"],
        input_mask=features["input_mask"],
        token_type_ids=features["segment_ids"],
        scope="bert",  # not a new one where it is built again
        use_one_hot_embeddings=compute.one_hot_embeddings,
        remove_padding=compute.remove_padding,
        precision=compute.precision,
        recompute=compute.recompute and mode == TRAIN,
        with_pooler=with_pooler,
    )


def with_head(config: modeling.BertConfig, head: Head, compute: ComputeOptions) -> Network:
    """Returns the network of BERT with a head over it: (features, mode) -> Outputs."""

    def build(features: Mapping[str, Any], mode: str) -> Outputs:
        model = encoder(config, features, mode, compute, head.with_pooler)
        return head.build(model, features, mode)

    return build


def make(
    network: Network,
    model_dir: Optional[str],
    init_checkpoint: Optional[checkpoint_files.Weights],
    use_tpu: bool = False,
    training: Optional[Training] = None,
    if_untrained: str = "train first (--do_train)",
    constant_kernels: Optional[str] = None,
) -> Callable[..., Any]:
    """Returns a model function (features, labels, mode, params) -> TPUEstimatorSpec.

    Args:
      network: (features, mode) -> Outputs.
      model_dir: where the Estimator keeps checkpoints; None if it keeps none.
      init_checkpoint: weights to start from where `model_dir` has none.
      use_tpu: whether the function runs on a TPU.
      training: needed in mode TRAIN.
      if_untrained: what to do where the weights lack a part of the network.
      constant_kernels: the precision of layers whose kernels are to be constants of the graph, in
        mode PREDICT with the weights of `init_checkpoint` (see constants.py); None for variables.
    """

    def model_fn(features, labels, mode, params):
        training_here = mode == TRAIN
        if training_here and not use_tpu:
            step = training_step.make(network, features, training)
            _initial_weights(mode, model_dir, init_checkpoint, use_tpu)
            return estimator_api.load().tpu.TPUEstimatorSpec(
                mode,
                loss=step.values["loss"],
                train_op=step.operation,
                training_hooks=[_progress(step, training, model_dir)],
            )
        # A checkpoint in model_dir would go before the initial one.
        is_constant = mode == PREDICT and init_checkpoint and model_dir is None
        precision = constant_kernels if is_constant else None
        with _kernels(init_checkpoint, precision) as kernels:
            outputs = network(features, mode)
        scaffold_fn = _initial_weights(
            mode, model_dir, init_checkpoint, use_tpu, if_untrained, kernels
        )
        spec = {"mode": mode, "loss": outputs.loss, "scaffold_fn": scaffold_fn}
        if mode == PREDICT:
            spec["predictions"] = dict(outputs.predictions)
        elif mode == EVAL:
            spec["eval_metrics"] = outputs.metrics
        else:
            spec["train_op"] = optimization.create_optimizer(
                outputs.loss,
                training.learning_rate,
                training.num_train_steps,
                training.num_warmup_steps,
                use_tpu,
                training.settings,
            )
        return estimator_api.load().tpu.TPUEstimatorSpec(**spec)

    return model_fn


def _kernels(
    init_checkpoint: Optional[checkpoint_files.Weights], precision: Optional[str]
) -> contextlib.AbstractContextManager[list[tf.Tensor]]:
    """Lets a network have kernels of the checkpoint as constants, unless `precision` is None."""
    if init_checkpoint is None or precision is None:
        return contextlib.nullcontext([])
    shapes = checkpoint_files.shapes(init_checkpoint.prefix)
    read = tf.train.load_checkpoint(init_checkpoint.prefix).get_tensor
    return constants.kernels(shapes, read, precision)


def _progress(
    step: training_step.Step, training: Training, model_dir: str
) -> tf.train.SessionRunHook:
    """Writes the values to TensorBoard and returns the hook that shows them."""
    for name, value in step.values.items():
        if name != "loss":  # the Estimator writes that one itself
            tf.summary.scalar(name, value)
    writes_to = model_dir if cluster.is_chief() else None
    return hooks.TrainingProgress(
        training.num_train_steps,
        training.steps_between_lines,
        step.values,
        step.tokens,
        writes_to,
    )


def _initial_weights(
    mode: str,
    model_dir: Optional[str],
    init_checkpoint: Optional[checkpoint_files.Weights],
    use_tpu: bool,
    if_untrained: str = "",
    kernels: Sequence[tf.Tensor] = (),
):
    """Decides where the weights of the network just built come from, and checks that they fit.

    The `kernels` are constants, which have their weights already.

    Returns:
      The function that TPUs need to be told the initial values, or None.
    """
    variables = tf.trainable_variables()
    latest = tf.train.latest_checkpoint(model_dir) if model_dir else None
    if latest:  # the Estimator restores it
        restore.check_same_model(latest, variables)
        return None
    training = mode == TRAIN
    if init_checkpoint is None:
        if not training:
            raise UserError(
                f"{model_dir}: no checkpoint in it and none given; train first, or pass"
                " --init_checkpoint"
            )
        logging.info("starting from random weights")
        return None
    fitting = restore.fit(init_checkpoint, [*variables, *kernels])
    logging.info("%s: %s", init_checkpoint.source, fitting.text())
    if logging.level_debug():
        there = checkpoint_files.shapes(init_checkpoint.prefix)
        logging.debug("%s", restore.origins(fitting, there, [*variables, *kernels]))
    restore.warn_of_new_encoder_variables(fitting)
    if not training:
        restore.check_complete(fitting, init_checkpoint.source, if_untrained)
    if not use_tpu:
        restore.restore_at_start(init_checkpoint, fitting)
        return None

    def scaffold():
        restore.restore_at_start(init_checkpoint, fitting)
        return tf.train.Scaffold()

    return scaffold


def starting_step(
    model_dir: str, num_train_steps: int, flag: str, differences: Sequence[str] = ()
) -> int:
    """Returns the step that training in `model_dir` starts from, and says what will happen.

    Args:
      model_dir: the output directory.
      num_train_steps: steps in all.
      flag: the one that says how many.
      differences: by what the training there differs, as training_notes.differences has them.
    """
    latest = tf.train.latest_checkpoint(model_dir)
    if latest is None:
        return 0
    step = int(tf.train.load_variable(latest, "global_step"))
    trained = f"; it was trained {', '.join(differences)}" if differences else ""
    if step >= num_train_steps:
        logging.warning(
            "nothing to train: %s is at step %d, and %d were asked for%s; raise --%s to train on"
            " from there, or %s",
            latest,
            step,
            num_train_steps,
            trained,
            flag,
            output_dir.to_begin_anew(),
        )
    else:
        say = logging.warning if differences else logging.info
        say("going on from %s: step %d of %d%s", latest, step, num_train_steps, trained)
    return step
