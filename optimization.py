"""AdamW as BERT was trained with: warm-up, linear decay, decoupled decay, no bias correction."""

import re
from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

MAX_GRADIENT_NORM = 1.0


# A graph collection: the global norm of the gradients before they are clipped, a scalar.
GRADIENT_NORM = "gradient_norm"


def learning_rate_schedule(
    global_step: tf.Tensor, init_lr: float, num_train_steps: int, num_warmup_steps: int
) -> tf.Tensor:
    """The published schedule: the learning rate of the step after `global_step`, a float32 scalar.

    Steps are numbered from 1 here. During warm-up the rate is init_lr * step / num_warmup_steps,
    afterwards init_lr * (1 - step / num_train_steps); the first step has a rate above zero and the
    last one rate zero. The decay counts from the start, so the rate drops a little where warm-up
    ends.
    """
    step = tf.cast(global_step + 1, tf.float32)
    decayed = init_lr * (1.0 - tf.minimum(step, float(num_train_steps)) / num_train_steps)
    if not num_warmup_steps:
        return decayed
    return tf.where(step < num_warmup_steps, init_lr * step / num_warmup_steps, decayed)


def create_optimizer(
    loss: tf.Tensor,
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: Optional[int],
    use_tpu: bool = False,
) -> tf.Operation:
    """Returns the operation that makes one training step and counts it in global_step.

    Args:
      loss: scalar, the mean over the batch.
      init_lr: the peak learning rate.
      num_train_steps: the step at which the rate reaches zero.
      num_warmup_steps: steps over which the rate rises from zero; 0 or None for no warm-up.
      use_tpu: whether to average gradients over the cores of a TPU.
    """
    global_step = tf.train.get_or_create_global_step()
    optimizer: tf.train.Optimizer = AdamWeightDecayOptimizer(
        learning_rate=learning_rate_schedule(
            global_step, init_lr, num_train_steps, num_warmup_steps or 0
        ),
        weight_decay_rate=0.01,
        exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
        clip_norm=MAX_GRADIENT_NORM,
    )
    if use_tpu:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    gradients = optimizer.compute_gradients(loss, tf.trainable_variables())
    return optimizer.apply_gradients(
        [pair for pair in gradients if pair[0] is not None], global_step
    )


class AdamWeightDecayOptimizer(tf.train.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101).

        m <- beta_1 * m + (1 - beta_1) * g
        v <- beta_2 * v + (1 - beta_2) * g^2
        w <- w - learning_rate * (m / (sqrt(v) + epsilon) + weight_decay_rate * w)

    It differs from the paper in that m and v are not corrected for their bias towards zero in the
    first steps, as in BERT's own training.
    """

    def __init__(
        self,
        learning_rate,
        weight_decay_rate: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        exclude_from_weight_decay: Optional[Sequence[str]] = None,
        clip_norm: Optional[float] = None,
        name: str = "AdamWeightDecayOptimizer",
    ):
        """Makes the optimizer.

        Args:
          learning_rate: a number or scalar tensor.
          weight_decay_rate: share of a weight taken off, times the learning rate, each step.
          beta_1: decay of the first moment.
          beta_2: decay of the second moment.
          epsilon: added to the square root of the second moment.
          exclude_from_weight_decay: regular expressions; a variable in whose name one is found
            does not decay.
          clip_norm: scale all gradients together down to this norm where theirs is larger. They
            are first summed over replicas, so that the result does not depend on their number.
          name: of the operations.
        """
        super().__init__(False, name)
        self.learning_rate = learning_rate
        self.weight_decay_rate = weight_decay_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude_from_weight_decay = list(exclude_from_weight_decay or [])
        self.clip_norm = clip_norm

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Applies gradients, clipped if the optimizer was made so, and counts the step."""
        gradients, variables = zip(*((g, v) for g, v in grads_and_vars if g is not None))
        if self.clip_norm is not None:
            gradients = _clip(gradients, self.clip_norm)
        return super().apply_gradients(list(zip(gradients, variables)), global_step, name)

    def _create_slots(self, var_list):
        for variable in var_list:
            # The third argument names the slot: <variable>/adam_m, as in published checkpoints.
            self._zeros_slot(variable, "m", "adam_m")
            self._zeros_slot(variable, "v", "adam_v")

    def _prepare(self):
        self._learning_rate_tensor = tf.convert_to_tensor(self.learning_rate, name="learning_rate")

    def _resource_apply_dense(self, grad, var):
        dtype = var.dtype.base_dtype
        rate = tf.cast(self._learning_rate_tensor, dtype)
        decayed = []
        if self._decays(var):
            decayed = [var.assign_sub(rate * self.weight_decay_rate * var, read_value=False)]
        with tf.control_dependencies(decayed):
            # With both beta powers 0, TensorFlow's one fused pass leaves out the bias correction.
            # It takes 1 - beta_2 in float32, where 1 - 0.999 is off by 1.3e-5; as v is linear in
            # that factor, the rate and epsilon can make up for it.
            correction = float(
                np.sqrt((1.0 - float(np.float32(self.beta_2))) / (1.0 - self.beta_2))
            )
            return tf.raw_ops.ResourceApplyAdam(
                var=var.handle,
                m=self.get_slot(var, "m").handle,
                v=self.get_slot(var, "v").handle,
                beta1_power=tf.zeros([], dtype),
                beta2_power=tf.zeros([], dtype),
                lr=rate * correction,
                beta1=tf.cast(self.beta_1, dtype),
                beta2=tf.cast(self.beta_2, dtype),
                epsilon=tf.cast(self.epsilon * correction, dtype),
                grad=grad,
                use_locking=self._use_locking,
            )

    def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
        # Moments and weights of all rows decay, also of those that this batch does not use.
        dense = tf.math.unsorted_segment_sum(grad, indices, handle.shape[0])
        return self._resource_apply_dense(dense, handle)

    def _decays(self, variable) -> bool:
        if not self.weight_decay_rate:
            return False
        return not any(
            re.search(pattern, variable.op.name) for pattern in self.exclude_from_weight_decay
        )


def _clip(gradients: Sequence, clip_norm: float) -> Sequence:
    """Scales gradients together so that the global norm of their sum over replicas is limited."""
    replica = tf.distribute.get_replica_context()
    count = replica.num_replicas_in_sync if replica is not None else 1
    if count > 1:
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        total = replica.merge_call(_sum_over_replicas, dense)
        # tf.train.Optimizer sums over the replicas later; it then finds the same share in each.
        gradients = [gradient / count for gradient in total]
        clip_norm = clip_norm / count
    norm = tf.global_norm(gradients)
    tf.add_to_collection(GRADIENT_NORM, norm * count)
    return tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)[0]


def _sum_over_replicas(strategy, *gradients):
    return strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, [(gradient, gradient) for gradient in gradients]
    )
