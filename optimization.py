"""The optimizers BERT is trained with, AdamW and LAMB, and their learning rates."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import tensorflow.compat.v1 as tf

from bert_toolkit.errors import UserError

MAX_GRADIENT_NORM = 1.0
WEIGHT_DECAY_RATE = 0.01
# Ends of names: a head may be in a scope that a user has named.
NOT_DECAYED = ("(LayerNorm|layer_norm)/(beta|gamma)$", "bias$")
# The last part of the name of a variable's average over the steps of training.
EMA = "ema"


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How weights are optimized, beyond rate and steps; the defaults are as published.

    Attributes:
      optimizer: "adamw" or "lamb".
      schedule: a key of SCHEDULES.
      bias_correction: whether AdamW corrects its moments for starting at zero; LAMB always does.
      layer_decay: the learning rate of each layer, as a share of that of the layer above.
      head_factor: the learning rate of what is not of the encoder, as a multiple of the others'.
      unfreeze_steps: train the heads and the pooler first, and every so many steps one more layer,
        the highest first, the embeddings last; 0 for all from the start.
      ema_decay: keep an average of each variable over the steps, in which a step counts this share
        of the next one; 0 for none.
      frozen: what stays as it is: "embeddings", "encoder", "pooler", numbers of layers ("3") and
        ranges of them ("0-5").
      loss_scaling: whether gradients pass through float16, where small ones would vanish.
    """

    optimizer: str = "adamw"
    schedule: str = "published"
    bias_correction: bool = False
    layer_decay: float = 1.0
    head_factor: float = 1.0
    unfreeze_steps: int = 0
    ema_decay: float = 0.0
    frozen: Sequence[str] = ()
    loss_scaling: bool = False


PUBLISHED = OptimizerSettings()


# --- Learning rates ---


def _published(step, steps, warmup):
    return 1.0 - step / steps


def _linear(step, steps, warmup):
    return (steps - step) / max(1.0, steps - warmup)


def _cosine(step, steps, warmup):
    return 0.5 * (1.0 + tf.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def _constant(step, steps, warmup):
    return tf.ones_like(step)


# Name -> share of the peak rate at a step after warm-up: (step, last step, steps of warm-up).
SCHEDULES: dict[str, Callable] = {
    "published": _published,
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}


def learning_rate_schedule(
    global_step: tf.Tensor,
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    schedule: str = "published",
) -> tf.Tensor:
    """Returns the learning rate of the step after `global_step`, a float32 scalar.

    Steps are numbered from 1 here: the first has a rate above zero. During warm-up the rate is
    init_lr * step / num_warmup_steps. Afterwards it is init_lr times

        published   1 - step / num_train_steps, counted from the start, so that the rate drops a
                    little where warm-up ends
        linear      (num_train_steps - step) / (num_train_steps - num_warmup_steps)
        cosine      half a wave from 1 to 0 (https://arxiv.org/abs/1608.03983)
        constant    1
    """
    step = tf.cast(global_step + 1, tf.float32)
    steps, warmup = float(num_train_steps), float(num_warmup_steps)
    rate = init_lr * SCHEDULES[schedule](tf.minimum(step, steps), steps, warmup)
    if not num_warmup_steps:
        return rate
    return tf.where(step < warmup, init_lr * step / warmup, rate)


# --- Variables ---

_COPY = re.compile(r"/replica_\d+$")


def name_of(variable: Any) -> str:
    """Returns a variable's name in checkpoints; its copies on other devices have that name too."""
    return _COPY.sub("", variable.op.name)


# --- A training step ---


def create_optimizer(
    loss: tf.Tensor,
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: Optional[int],
    use_tpu: bool = False,
    settings: OptimizerSettings = PUBLISHED,
) -> tf.Operation:
    """Returns the operation that makes one training step and counts it in global_step.

    Args:
      loss: scalar, the mean over the batch, or over the share of it that a replica has.
      init_lr: the peak learning rate.
      num_train_steps: the step at which the rate reaches zero.
      num_warmup_steps: steps over which the rate rises from zero; 0 or None for no warm-up.
      use_tpu: whether to average gradients over the cores of a TPU.
      settings: what else there is to choose.
    """
    global_step = tf.train.get_or_create_global_step()
    rate = learning_rate_schedule(
        global_step, init_lr, num_train_steps, num_warmup_steps or 0, settings.schedule
    )
    variables = trainable_variables(settings.frozen)
    optimizer = make_optimizer(rate, settings)
    if use_tpu:
        over_cores = tf.tpu.CrossShardOptimizer(optimizer)
        pairs = over_cores.compute_gradients(loss, variables)
        found = [pair for pair in pairs if pair[0] is not None]
        return over_cores.apply_gradients(found, global_step)
    replica = tf.distribute.get_replica_context()
    share = loss / replica.num_replicas_in_sync if replica is not None else loss
    return optimizer.apply(optimizer.gradients(share, variables), global_step).operation


def make_optimizer(
    learning_rate, settings: OptimizerSettings = PUBLISHED
) -> "AdamWeightDecayOptimizer":
    """Returns the optimizer, with the decay and the clip that BERT is trained with."""
    make = LambOptimizer if settings.optimizer == "lamb" else AdamWeightDecayOptimizer
    return make(
        learning_rate=learning_rate,
        weight_decay_rate=WEIGHT_DECAY_RATE,
        exclude_from_weight_decay=NOT_DECAYED,
        clip_norm=MAX_GRADIENT_NORM,
        bias_correction=settings.bias_correction or settings.optimizer == "lamb",
        layer_decay=settings.layer_decay,
        head_factor=settings.head_factor,
        unfreeze_steps=settings.unfreeze_steps,
        ema_decay=settings.ema_decay,
        loss_scale=LossScale() if settings.loss_scaling else None,
    )


def trainable_variables(frozen: Sequence[str] = ()) -> list[tf.Variable]:
    """Returns the variables to train: all but the frozen parts.

    Raises:
      UserError: a part is unknown, or no variable is left.
    """
    variables = tf.trainable_variables()
    for part in frozen:
        pattern = re.compile(_pattern_of(part))
        if not any(pattern.search(variable.op.name) for variable in tf.trainable_variables()):
            raise UserError(f"--freeze={part}: the model has no such layer")
        variables = [variable for variable in variables if not pattern.search(variable.op.name)]
    if not variables:
        raise UserError("--freeze: nothing is left to train")
    return variables


def _pattern_of(part: str) -> str:
    """Returns the expression for the names of a part's variables."""
    if part in ("embeddings", "encoder", "pooler"):
        return f"^bert/{part}/"
    layers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if layers is None:
        raise UserError(
            f"--freeze={part}: expected embeddings, encoder, pooler, or layers, such as 3 or 0-5"
        )
    first, last = int(layers[1]), int(layers[2] or layers[1])
    if last < first:
        raise UserError(f"--freeze={part}: the range ends before it begins")
    return f"^bert/encoder/layer_({'|'.join(map(str, range(first, last + 1)))})/"


# --- Gradients ---

Gradient = Union[tf.Tensor, tf.IndexedSlices]


class Gradients(NamedTuple):
    """Gradients of variables, in a form whose sums over replicas and parts of a batch are exact.

    The published global norm counts every looked-up row by itself, also where a row is looked up
    many times. To give that number for a batch computed in parts, the squares of rows go along.

    Attributes:
      variables: those that the loss depends on.
      values: of each variable; IndexedSlices where only rows of it were looked up.
      is_rows: of each variable, whether its gradient is or was IndexedSlices.
      squares: scalar, the sum of squares of all looked-up rows' gradients.
    """

    variables: list[tf.Variable]
    values: list[Gradient]
    is_rows: list[bool]
    squares: tf.Tensor

    @classmethod
    def of(cls, pairs: Iterable[tuple[Optional[Gradient], tf.Variable]]) -> "Gradients":
        """Takes pairs of gradient and variable, as tf.train.Optimizer computes them."""
        values, variables = zip(*(pair for pair in pairs if pair[0] is not None))
        is_rows = [isinstance(value, tf.IndexedSlices) for value in values]
        rows = [value.values for value, it_is in zip(values, is_rows) if it_is]
        return cls(list(variables), list(values), is_rows, _squares(rows))

    def map(self, function: Callable[[list[tf.Tensor]], Sequence[tf.Tensor]]) -> "Gradients":
        """Returns what a linear function makes of all tensors, rows as whole tables."""
        *values, squares = function([*map(tf.convert_to_tensor, self.values), self.squares])
        return self._replace(values=list(values), squares=squares)

    def norm(self) -> tf.Tensor:
        """Returns the global norm, a scalar."""
        whole = [value for value, it_is in zip(self.values, self.is_rows) if not it_is]
        return tf.sqrt(_squares(whole) + self.squares)


def _squares(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return 2.0 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors] or [tf.zeros([])])


def gradients_of(loss: tf.Tensor, variables: Sequence[tf.Variable]) -> Gradients:
    """Returns the gradients of a scalar, for the variables it depends on."""
    found = tf.gradients(loss, [variable.handle for variable in variables])
    return Gradients.of(zip(found, variables))


def sum_over_replicas(tensors: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Returns the sums of tensors over all replicas; as they are where there is one."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tensors
    return replica.merge_call(_sum_over_replicas, tensors)


def _sum_over_replicas(strategy, *tensors):
    return strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, [(tensor, tensor) for tensor in tensors]
    )


class LossScale:
    """What a loss is multiplied by, so that float16 gradients neither vanish nor overflow.

    It doubles after 2,000 steps without overflow; a step that overflows is left out, and the scale
    halved (Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740, section 3.2).
    """

    def __init__(self, initial: float = 2.0**15, steps_to_double: int = 2000):
        """Makes its variables; they are local, so that checkpoints are those of float32."""
        self.steps_to_double = steps_to_double
        self.value = _local_variable("loss_scale", initial, tf.float32)
        self._steps = _local_variable("steps_without_overflow", 0, tf.int32)

    def update(self, is_finite: tf.Tensor) -> tf.Operation:
        """Returns the operation that takes note of a step."""
        steps = tf.where(is_finite, self._steps + 1, 0)
        is_full = tf.equal(steps, self.steps_to_double)
        grown = tf.where(is_full, 2.0 * self.value, self.value)
        value = tf.where(is_finite, grown, tf.maximum(1.0, 0.5 * self.value))
        with tf.control_dependencies([value, steps]):
            return tf.group(
                self.value.assign(value), self._steps.assign(tf.where(is_full, 0, steps))
            )


def _local_variable(name: str, initial, dtype) -> tf.Variable:
    return tf.get_variable(
        name,
        initializer=tf.constant(initial, dtype),
        trainable=False,
        collections=[tf.GraphKeys.LOCAL_VARIABLES],
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


# --- Optimizers ---


class Applied(NamedTuple):
    """The operation of a step, and the global norm of its gradients (scalar), if it clips."""

    operation: tf.Operation
    gradient_norm: Optional[tf.Tensor]


class AdamWeightDecayOptimizer(tf.train.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101).

        m <- beta_1 * m + (1 - beta_1) * g
        v <- beta_2 * v + (1 - beta_2) * g^2
        w <- w - learning_rate * (m / (sqrt(v) + epsilon) + weight_decay_rate * w)

    It differs from the paper in that m and v are not corrected for their bias towards zero in the
    first steps, as in BERT's own training; `bias_correction` divides them by 1 - beta^step first.
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
        bias_correction: bool = False,
        layer_decay: float = 1.0,
        head_factor: float = 1.0,
        unfreeze_steps: int = 0,
        ema_decay: float = 0.0,
        loss_scale: Optional[LossScale] = None,
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
          bias_correction: whether to correct the moments, by the number of the step.
          layer_decay: the learning rate of each layer, as a share of that of the layer above
            (Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146, section 3.2).
          head_factor: the learning rate of variables outside of bert/, as a multiple.
          unfreeze_steps: steps after which the next layer below trains, too (section 3.3 there);
            until then its rate is 0, while its moments gather. 0 for all from the first step.
          ema_decay: decay of the average of each variable, kept in its slot <variable>/ema; 0 for
            none. After step t it is the weighted mean of the values after steps 1 to t, that after
            step i with weight ema_decay^(t - i), so that the values at the start do not count.
          loss_scale: what `gradients` scales by in between; steps that overflow are left out.
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
        self.bias_correction = bias_correction
        self.layer_decay = layer_decay
        self.head_factor = head_factor
        self.unfreeze_steps = unfreeze_steps
        self.ema_decay = ema_decay
        self.loss_scale = loss_scale
        self._is_finite: Optional[tf.Tensor] = None
        self._trained: Mapping[str, tf.Tensor] = {}

    def gradients(self, loss: tf.Tensor, variables: Sequence[tf.Variable]) -> Gradients:
        """Returns the gradients of a replica's share of the loss."""
        if self.loss_scale is None:
            return gradients_of(loss, variables)
        scale = self.loss_scale.value.read_value()
        scaled = gradients_of(loss * scale, variables)
        whole = scaled.map(lambda tensors: [tensor / scale for tensor in tensors])
        return whole._replace(squares=whole.squares / scale)  # which go by the square of it

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Applies gradients, clipped if the optimizer was made so, and counts the step."""
        return self.apply(Gradients.of(grads_and_vars), global_step, name).operation

    def apply(
        self,
        gradients: Gradients,
        global_step: Optional[tf.Variable] = None,
        name: Optional[str] = None,
        trained: Optional[Mapping[str, tf.Tensor]] = None,
    ) -> "Applied":
        """Sums gradients over replicas, clips and applies them, and counts the step.

        Args:
          gradients: of the loss.
          global_step: counts the steps.
          name: of the operation.
          trained: the beginning of names of variables -> bool scalar; where it is false, these
            variables and their moments stay as they are: they do not decay either.
        """
        self._trained = trained or {}
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            gradients = gradients.map(sum_over_replicas)
        values, norm = gradients.values, None
        if self.clip_norm is not None:
            norm = gradients.norm()
            values = tf.clip_by_global_norm(values, self.clip_norm, use_norm=norm)[0]
        more = []
        if self.loss_scale is not None:
            self._is_finite = tf.math.is_finite(gradients.norm())
            more = [self.loss_scale.update(self._is_finite)]
        step = global_step.read_value() if global_step is not None else tf.zeros([], tf.int64)
        self._prepare_rates(gradients.variables, step)
        pairs = list(zip(values, gradients.variables))
        applied = super().apply_gradients(pairs, global_step, name)
        return Applied(tf.group(applied, *more) if more else applied, norm)

    def _distributed_apply(self, distribution, grads_and_vars, global_step=None, name=None):
        # TensorFlow's own would sum over replicas once more, after what clipping needed.
        variables = [variable for _, variable in grads_and_vars]
        with tf.init_scope():
            self._create_slots(variables)
        self._prepare()

        def update(variable, gradient):
            return self._resource_apply_dense(gradient, variable)

        updates = [
            operation
            for gradient, variable in grads_and_vars
            for operation in distribution.extended.update(
                variable, update, args=(gradient,), group=False
            )
        ]
        with tf.control_dependencies(updates):
            return distribution.extended.update(
                global_step, lambda step: step.assign_add(1, read_value=False)
            )

    def _create_slots(self, var_list):
        for variable in var_list:
            # The third argument names the slot: <variable>/adam_m, as in published checkpoints.
            self._zeros_slot(variable, "m", "adam_m")
            self._zeros_slot(variable, "v", "adam_v")
            if self.ema_decay:
                self._zeros_slot(variable, "average", EMA)

    def _prepare_rates(self, variables: Sequence[tf.Variable], step: tf.Tensor) -> None:
        """Makes what all variables share: rates, and corrections of the step to come."""
        self._rate = tf.convert_to_tensor(self.learning_rate, name="learning_rate")
        self._step = step
        self._corrections = (1.0, 1.0)
        number = tf.cast(step + 1, tf.float32)
        if self.ema_decay:
            # What the newest value counts in the average; 1 at the first step.
            rest = -tf.math.expm1(number * math.log(self.ema_decay))
            self._newest_share = (1.0 - self.ema_decay) / rest
        if self.bias_correction:
            # 1 - beta^number, without the loss of digits of that difference in float32
            self._corrections = tuple(
                -tf.math.expm1(number * math.log(beta)) for beta in (self.beta_1, self.beta_2)
            )
        numbers = [_layer_number(variable.op.name) for variable in variables]
        self._layers = 1 + max((number for number in numbers if number is not None), default=-1)

    def _rate_of(self, variable: tf.Variable) -> tf.Tensor:
        """Returns the variable's learning rate: a scalar."""
        name = variable.op.name
        number = -1 if name.startswith("bert/embeddings/") else _layer_number(name)
        below_heads = 0 if number is None else self._layers - number
        rate = self._rate * self.layer_decay**below_heads
        if self.head_factor != 1.0 and not name.startswith("bert/"):
            rate *= self.head_factor
        if self.unfreeze_steps:
            rate *= tf.cast(self._step >= below_heads * self.unfreeze_steps, tf.float32)
        return rate

    def _resource_apply_dense(self, grad, var):
        conditions = [] if self._is_finite is None else [self._is_finite]
        conditions += [
            is_trained
            for beginning, is_trained in self._trained.items()
            if var.op.name.startswith(beginning)
        ]
        if conditions:
            is_due = tf.reduce_all(tf.stack(conditions))
            update = tf.cond(is_due, lambda: tf.group(self._update(grad, var)), tf.no_op)
        else:
            update = self._update(grad, var)
        if not self.ema_decay:
            return update
        average = self.get_slot(var, "average")
        with tf.control_dependencies([update]):
            change = self._newest_share * (var.read_value() - average.read_value())
            return average.assign_add(change, read_value=False)

    def _update(self, grad: tf.Tensor, var: tf.Variable) -> tf.Operation:
        """Returns the operation that updates a variable and its moments."""
        rate = self._rate_of(var)
        decayed = []
        if self._decays(var):
            # Not before the gradient is there: it is that of the weights as they were.
            with tf.control_dependencies([grad]):
                decay = rate * self.weight_decay_rate * var.read_value()
                decayed = [var.assign_sub(decay, read_value=False)]
        # With both beta powers 0, TensorFlow's one fused pass leaves out the bias correction. It
        # takes 1 - beta_2 in float32, where 1 - 0.999 is off by 1.3e-5; as v is linear in that
        # factor, the rate and epsilon can make up for it, and for the bias.
        rounding = float(np.sqrt((1.0 - float(np.float32(self.beta_2))) / (1.0 - self.beta_2)))
        first, second = self._corrections
        root = rounding * second**0.5
        with tf.control_dependencies(decayed):
            return tf.raw_ops.ResourceApplyAdam(
                var=var.handle,
                m=self.get_slot(var, "m").handle,
                v=self.get_slot(var, "v").handle,
                beta1_power=0.0,
                beta2_power=0.0,
                lr=rate * root / first,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon * root,
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
            re.search(pattern, name_of(variable)) for pattern in self.exclude_from_weight_decay
        )


class LambOptimizer(AdamWeightDecayOptimizer):
    """LAMB, for very large batches (You et al., 2020, https://arxiv.org/abs/1904.00962).

    Algorithm 2 there:

        m, v as in Adam, corrected for their bias
        u <- m / (sqrt(v) + epsilon) + weight_decay_rate * w
        w <- w - learning_rate * |w| / |u| * u

    with the ratio 1 where a norm is 0. Variables that do not decay (biases, layer normalization)
    have no ratio either, as in the authors' training of BERT.
    """

    def _update(self, grad: tf.Tensor, var: tf.Variable) -> tf.Operation:
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        first, second = self._corrections
        new_m = m.assign(self.beta_1 * m + (1.0 - self.beta_1) * grad)
        new_v = v.assign(self.beta_2 * v + (1.0 - self.beta_2) * tf.square(grad))
        step = (new_m / first) / (tf.sqrt(new_v / second) + self.epsilon)
        rate = self._rate_of(var)
        if self._decays(var):
            step += self.weight_decay_rate * var
            rate *= _ratio(tf.norm(var), tf.norm(step))
        return var.assign_sub(rate * step, read_value=False)


def _ratio(weights: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    return tf.where((weights > 0) & (step > 0), weights / step, 1.0)


def _layer_number(name: str) -> Optional[int]:
    found: Any = re.match(r"bert/encoder/layer_(\d+)/", name)
    return int(found[1]) if found else None
