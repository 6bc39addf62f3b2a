"""Several tasks at once: one encoder, a head for each, batches of one task at a time.

Liu et al., 2019, MT-DNN (https://arxiv.org/abs/1901.11504), algorithm 1. The model of all tasks is
in the output directory, its heads' variables in scopes of their own; beside it each task has a
directory with a model of its own, the encoder and its head under their published names.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from absl import logging

import modeling
from bert_toolkit.checkpoints import checkpoint_files, model_directory, training_notes
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.io import metrics_files
from bert_toolkit.tasks.base import EncodedSplit
from bert_toolkit.tasks.best_model import BestModelKeeper
from bert_toolkit.tasks.finetune import Finetuning, ModelTraining
from bert_toolkit.training import cluster, model_functions
from bert_toolkit.training.mixed_input import NUMBER, MixedInput
from bert_toolkit.training.outputs import Head, Mean, Network, Outputs

# The mean of what the tasks are judged by, as the name of a metric.
MEAN = "mean"
POOLER = "bert/pooler/"


class Member(NamedTuple):
    """A task among several.

    Attributes:
      name: of its scope and its directory.
      finetuning: of the task, in that directory.
      weight: its share of the batches, beside what its size makes it.
      perfect: what it is judged by, if all is right.
    """

    name: str
    finetuning: Finetuning
    weight: float = 1.0
    perfect: float = 1.0

    def head(self) -> Head:
        """Returns what the task computes of BERT's outputs."""
        finetuning = self.finetuning
        return finetuning.task.head(finetuning.model.config_with(finetuning.options.dropout()))


# --- The network ---


def scope_of(name: str) -> str:
    """Returns the scope of the variables of a task's head."""
    return f"tasks/{name}"


class _Rows:
    """The outputs of a model for the first rows of its batch, perhaps none."""

    def __init__(self, model: modeling.BertModel, rows: tf.Tensor):
        self._model, self._rows = model, rows

    def get_pooled_output(self) -> tf.Tensor:
        """[rows, H]."""
        return self._model.get_pooled_output()[: self._rows]

    def get_sequence_output(self) -> tf.Tensor:
        """[rows, S, H]."""
        return self._model.get_sequence_output()[: self._rows]


def network(
    config: modeling.BertConfig, heads: Mapping[str, Head], compute: ComputeOptions, steps: int
) -> Network:
    """Returns the function (features, mode) -> Outputs, for features as MixedInput has them.

    The head of a task gets all rows of a batch of its own, and no rows of another's: its loss and
    its gradients are then exactly zero. It is not trained in such a step, nor is the pooler where
    the batch's task does not read it.

    Args:
      config: of the encoder.
      heads: by the task's name, in the order of the inputs.
      compute: how the encoder is computed.
      steps: at which training ends; what is done of them is a feature for the heads, "progress".
    """
    with_pooler = any(head.with_pooler for head in heads.values())

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, compute, with_pooler)
        done = tf.cast(tf.train.get_or_create_global_step(), tf.float32) / max(1, steps)
        count = tf.shape(features["input_ids"])[0]
        parts, trained = [], {}
        for number, (name, head) in enumerate(heads.items()):
            turn = tf.equal(features[NUMBER][0], number)
            rows = tf.where(turn, count, 0)
            own = {key: value[:rows] for key, value in _features_of(name, features).items()}
            own["progress"] = tf.minimum(1.0, done)
            with tf.variable_scope(scope_of(name)):
                parts.append((turn, head.build(_Rows(model, rows), own, mode)))
            trained[f"{scope_of(name)}/"] = turn
        if with_pooler:
            reads = [turn for (turn, _), head in zip(parts, heads.values()) if head.with_pooler]
            trained[POOLER] = tf.reduce_any(tf.stack(reads))
        turns = {
            scope_of(name): Mean(tf.cast(turn, tf.float32), tf.ones([]))
            for name, (turn, _) in zip(heads, parts)
        }
        return Outputs(
            predictions={},
            losses=_joined([(turn, _on_labels(outputs.losses)) for turn, outputs in parts]),
            shown={
                **_joined([(turn, outputs.shown) for turn, outputs in parts]),
                **(turns if len(turns) > 1 else {}),
            },
            trained=trained,
        )

    return build


def _features_of(name: str, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the features of one task by their names in its schema, and those of all."""
    own = {key.removeprefix(f"{name}/"): value for key, value in features.items()}
    return {key: value for key, value in own.items() if "/" not in key and key != NUMBER}


def _on_labels(losses: Mapping[str, Mean]) -> dict[str, Mean]:
    """Returns losses with one name for those on labels; some tasks have others beside it."""
    return {"label_loss" if name == "loss" else name: mean for name, mean in losses.items()}


def _joined(parts: Sequence[tuple[tf.Tensor, Mapping[str, Mean]]]) -> dict[str, Mean]:
    """Returns the means of the task whose turn it is; 0 for those that it does not have."""
    joined = {}
    for key in dict.fromkeys(key for _, means in parts for key in means):
        there = [(turn, means[key]) for turn, means in parts if key in means]
        total = _of_turn([(turn, mean.total) for turn, mean in there], otherwise=0.0)
        weight = _of_turn([(turn, mean.weight) for turn, mean in there], otherwise=1.0)
        joined[key] = Mean(total, weight)
    return joined


def _of_turn(values: Sequence[tuple[tf.Tensor, tf.Tensor]], otherwise: float) -> tf.Tensor:
    """Returns the value of the task whose turn it is, a float32 scalar."""
    found = tf.constant(otherwise)
    for turn, value in values:
        found = tf.where(turn, tf.cast(value, tf.float32), found)
    return found


def shares(rows: Sequence[int], weights: Sequence[float], size_power: float) -> list[float]:
    """Returns the share of batches of each task: weight * rows^size_power, of their sum."""
    sizes = [weight * count**size_power for weight, count in zip(weights, rows)]
    return [size / sum(sizes) for size in sizes]


# --- Training and evaluation ---


class Multitask(ModelTraining):
    """A model that is trained for several tasks."""

    def __init__(self, members: Sequence[Member], model: model_directory.ModelFiles, options: Any):
        """Takes the tasks, the model to start from, and the options of bert multitask."""
        super().__init__(model, options)
        self.members = list(members)
        self._scores: dict[str, dict[str, dict[str, Any]]] = {}

    def note(self) -> dict[str, Any]:
        sources = [member.finetuning.task.train_source for member in self.members]
        facts = (
            fact
            for member in self.members
            for fact in ((member.name, member.weight), *member.finetuning.task.facts())
        )
        data = training_notes.data_facts(sources, facts)
        return training_notes.make(self._vocabulary, data, self.model.init_checkpoint, self.options)

    def store(self, note: Mapping[str, Any]) -> None:
        model_directory.write(self.directory, self.model)
        training_notes.write(self.directory, note)
        for member in self.members:
            member.finetuning.store(member.finetuning.note())

    def run(self) -> dict[str, Any]:
        """Trains, evaluates and predicts; returns the metrics, or {} on hosts but the first."""
        splits = [member.finetuning.encode() for member in self.members]
        train = {one.name: found[0] for one, found in zip(self.members, splits) if found[0]}
        dev = {one.name: found[1] for one, found in zip(self.members, splits)}
        self.train(train, dev)
        if not cluster.is_chief():
            return {}
        latest = tf.train.latest_checkpoint(self.directory)
        for member in self.members:
            self._take(member, latest)
        found = self._evaluate(dev)
        for member, (_, _, test) in zip(self.members, splits):
            for suffix, split in test.items():
                member.finetuning.predict(split, suffix)
        return found

    def train(
        self, train: Mapping[str, EncodedSplit], dev: Mapping[str, Mapping[str, EncodedSplit]]
    ) -> None:
        """Trains from where the output directory stands to --num_train_epochs."""
        options = self.options
        rows = [len(train[member.name].owners) for member in self.members]
        weights = [member.weight for member in self.members]
        steps = options.train_steps(sum(rows))
        data = MixedInput(
            {one.name: one.finetuning.training_input(train[one.name]) for one in self.members},
            shares(rows, weights, options.size_power),
            options.seed,
            steps,
        )
        for number, (member, count) in enumerate(zip(self.members, rows)):
            logging.info(
                "%s: %s rows, %.1f %% of the batches, %.2f passes",
                member.name,
                f"{count:,}",
                100 * data.shares[number],
                (data.draws() == number).sum() * options.train_batch_size / count,
            )
        heads = {member.name: member.head() for member in self.members}
        config = self.model.config_with(options.dropout())
        network_of_all = network(config, heads, options.compute(), steps)
        self._train(sum(rows), network_of_all, data, dev)

    # --- The best model ---

    def _keepers(
        self, rows: int, dev: Mapping[str, Mapping[str, EncodedSplit]]
    ) -> list[BestModelKeeper]:
        """Returns what keeps the best model of all tasks, by the mean, and that of each."""
        options = self.options
        every = options.steps_between_evaluations(rows)
        if not every:
            return []
        for member in self.members:
            if "" not in dev[member.name]:
                raise UserError(
                    f"--evaluate_every: nothing to evaluate the task {member.name} on; give it an"
                    " eval_file or an eval_split"
                )
        splits = {name: of_task[""] for name, of_task in dev.items()}

        def of_all() -> dict[str, Any]:
            found = self._latest_scores(splits)
            return {f"eval_{MEAN}": self._mean(found), **self._judged(found)}

        patience = options.early_stopping_patience
        keepers = [BestModelKeeper(self.directory, MEAN, every, patience, of_all)]
        for member in self.members:

            def of_one(name: str = member.name) -> dict[str, Any]:
                return self._latest_scores(splits)[name]

            directory = member.finetuning.directory
            metric = options.best_metric or member.finetuning.task.metric
            keepers.append(BestModelKeeper(directory, metric, every, 0, of_one))
        return keepers

    def _latest_scores(self, splits: Mapping[str, EncodedSplit]) -> dict[str, dict[str, Any]]:
        """Returns the metrics of the latest checkpoint by task, their mean among those of each."""
        checkpoint = tf.train.latest_checkpoint(self.directory)
        if checkpoint not in self._scores:
            found = {}
            for member in self.members:
                own = self._take(member, checkpoint)
                found[member.name] = member.finetuning.score(splits[member.name], own)
            mean = self._mean(found)
            self._scores = {
                checkpoint: {name: {**one, f"eval_{MEAN}": mean} for name, one in found.items()}
            }
        return self._scores[checkpoint]

    def _judged(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """Returns what each task is judged by, as `name/eval_metric`."""
        metrics = {
            member.name: f"eval_{member.finetuning.task.metric}"
            for member in self.members
            if member.name in found
        }
        return {f"{name}/{key}": float(found[name][key]) for name, key in metrics.items()}

    def _mean(self, found: Mapping[str, Mapping[str, Any]]) -> float:
        """Returns the mean over tasks of what each is judged by, as a share of what is perfect."""
        perfect = [member.perfect for member in self.members if member.name in found]
        shares = [score / most for score, most in zip(self._judged(found).values(), perfect)]
        return sum(shares) / len(shares)

    def _take(self, member: Member, checkpoint: str) -> str:
        """Makes a task's model of the model of all; returns its checkpoint.

        The one that was there is removed when the new one is whole.
        """
        directory = member.finetuning.directory
        prefix = os.path.join(directory, os.path.basename(checkpoint))
        before = tf.train.latest_checkpoint(directory)
        checkpoint_files.save(prefix, weights_of_task(checkpoint, member.name, member.head()))
        tf.train.update_checkpoint_state(directory, prefix)
        if before and before != prefix:
            tf.train.remove_checkpoint(before)
        return prefix

    def _evaluate(self, dev: Mapping[str, Mapping[str, EncodedSplit]]) -> dict[str, Any]:
        """Evaluates the model of each task; writes eval_results of each, and of all."""
        found: dict[str, dict[str, Any]] = {}
        for member in self.members:
            for suffix, split in dev[member.name].items():
                scores = member.finetuning.evaluate(split, suffix)
                if not suffix:
                    found[member.name] = scores
        if not found:
            return {}
        metrics = {f"eval_{MEAN}": self._mean(found), **self._judged(found)}
        stem = os.path.join(self.directory, "eval_results")
        metrics_files.write_metrics(stem, metrics, {"tasks": found})
        return metrics


def weights_of_task(checkpoint: str, name: str, head: Head) -> dict[str, Any]:
    """Returns the weights of a task's own model out of a checkpoint of all, as published.

    Raises:
      UserError: the checkpoint has no head of that task.
    """
    own, found = f"{scope_of(name)}/", {}
    there = checkpoint_files.read(checkpoint)
    for variable, value in there.items():
        if variable.startswith(own):
            found[variable.removeprefix(own)] = value
        elif variable.startswith("bert/") and (head.with_pooler or not variable.startswith(POOLER)):
            found[variable] = value
    if not any(f"{own}{variable}" in there for variable in found):
        raise UserError(
            f"{checkpoint}: was not trained for a task named {name}; pass the tasks it was trained"
            " for, or another --output_dir"
        )
    return found
