"""Options of the commands, each declared once: type, default, help, bounds.

A command's options are a frozen dataclass whose fields are made by `option`. Flags, --help, the
checks of single values and docs/flags.md are made from it (cli.py). Options are pure: making one
looks at no file and at no environment.

    @dataclasses.dataclass(frozen=True)
    class Options(ModelOptions):
        max_seq_length: int = option(128, "Longest sequence in tokens.", lower=4)

        GROUPS = {"Model": (ModelOptions, "max_seq_length")}
"""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

from bert_toolkit.compute import DEFAULT_COMPUTE, TPU_COMPUTE, ComputeOptions
from bert_toolkit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What is said of an option beside its type and its default.

    Attributes:
      help: its effect, its unit, what it has to match.
      lower: the least value, of numbers.
      upper: the greatest value, of numbers.
      choices: the values there are; any if empty.
      required: whether the command line must have it.
      alias: a name of earlier versions, which still works.
      repeated: of several texts, whether each has a flag of its own, rather than commas between.
      positional: of several texts, whether arguments without a flag are these.
    """

    help: str
    lower: Optional[float] = None
    upper: Optional[float] = None
    choices: tuple[str, ...] = ()
    required: bool = False
    alias: Optional[str] = None
    repeated: bool = False
    positional: bool = False


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a class of options.

    Attributes:
      name: of the field and of the flag.
      type: bool, int, float, str, or list for several texts.
      default: where it is not given.
      declared: all else.
    """

    name: str
    type: type
    default: Any
    declared: Declaration


def option(
    default: Any,
    help: str,
    *,
    lower: Optional[float] = None,
    upper: Optional[float] = None,
    choices: Sequence[str] = (),
    required: bool = False,
    alias: Optional[str] = None,
    repeated: bool = False,
    positional: bool = False,
) -> Any:
    """Returns a dataclass field that is an option of a command; see Declaration."""
    declared = Declaration(
        help, lower, upper, tuple(choices), required, alias, repeated, positional
    )
    return dataclasses.field(default=default, metadata={"declared": declared})


def spelled(value: Any) -> str:
    """Returns the value of an option as it stands on a command line: true, 5e-05, 3, a,b, none."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def options_of(options_class: type) -> dict[str, Option]:
    """Returns the options of a class by name, those of its bases included."""
    types = typing.get_type_hints(options_class)
    return {
        field.name: Option(
            field.name, _plain_type(types[field.name]), field.default, field.metadata["declared"]
        )
        for field in dataclasses.fields(options_class)
        if "declared" in field.metadata
    }


def groups_of(options_class: Any) -> dict[str, list[Option]]:
    """Returns the options by the title of their group, in the order of GROUPS.

    A class among the members of a group stands for the options that it declares itself.
    """
    options = options_of(options_class)
    groups = {
        title: [options[name] for member in members for name in _names(member) if name in options]
        for title, members in options_class.GROUPS.items()
    }
    grouped = {one.name for group in groups.values() for one in group}
    missing = sorted(options.keys() - grouped)
    assert not missing, f"{options_class}: GROUPS lacks {missing}"
    return groups


def _names(member: Union[str, type]) -> Iterator[str]:
    """Yields the name of an option, or the names that a class declares itself."""
    if isinstance(member, str):
        yield member
    else:
        declared = options_of(member)
        yield from (name for name in member.__annotations__ if name in declared)


def _plain_type(annotation: Any) -> type:
    """Returns what a value is parsed as: Optional[int] is int, a sequence of texts is list."""
    if typing.get_origin(annotation) is Union:
        [annotation] = [part for part in typing.get_args(annotation) if part is not type(None)]
    return list if typing.get_origin(annotation) is not None else annotation


def check(conflicts: Sequence[str]) -> None:
    """Raises one UserError with all sentences, a line each, if there are any."""
    if conflicts:
        raise UserError("\n".join(conflicts))


# As many as the published batch of extract_features.py, 32 sequences of 128 tokens.
BATCH_TOKENS = 4096


def batch_tokens_option(what: str) -> Any:
    """Returns the option of how many tokens a batch of short sequences may have."""
    return option(
        BATCH_TOKENS,
        f"{what} has more sequences than its size where they are short: as many of about the same"
        " length as have so many tokens, padding included. 0 for its size always, as with --use_tpu"
        " and --xla. Results stay the same.",
        lower=0,
    )


def show_examples_option() -> Any:
    """Returns the option of how many examples are shown as the model reads them."""
    return option(
        0,
        "Show so many of the first examples of each file in the log, as the model reads them: text,"
        " tokens, ids, mask, segments and labels.",
        lower=0,
    )


# --- Options that several commands share, with the names and defaults of the published scripts ---


@dataclasses.dataclass(frozen=True)
class RuleOptions:
    """How text is cleaned and cut, whatever the vocabulary; None where an option is not given."""

    do_lower_case: Optional[bool] = option(
        None,
        "Lower-case the text and strip accents: true for uncased models, false for cased ones."
        " Without this flag, what the model directory says (tokenizer_config.json), else true.",
    )
    strip_accents: Optional[bool] = option(
        None, "Strip accents; without this flag, when lower-casing."
    )
    tokenize_chinese_chars: Optional[bool] = option(
        None, "Make a token of every Chinese character; without this flag, true."
    )
    never_split: Optional[Sequence[str]] = option(
        None, "Tokens of the vocabulary, separated by commas, that stay whole in text: [MASK],[E1]."
    )


@dataclasses.dataclass(frozen=True)
class TokenizerOptions(RuleOptions):
    """How text becomes token ids."""

    vocab_file: Optional[str] = option(
        None, "The vocabulary the model was trained with, one token a line."
    )


@dataclasses.dataclass(frozen=True)
class ModelOptions(TokenizerOptions):
    """The files of a model."""

    bert_dir: Optional[str] = option(
        None,
        "A model directory, in place of --bert_config_file, --vocab_file and --init_checkpoint:"
        " the output directory of a stage, Google's layout (bert_config.json, vocab.txt,"
        " bert_model.ckpt) or Hugging Face's (config.json, vocab.txt or tokenizer.json,"
        " model.safetensors). A file flag given as well wins.",
    )
    bert_config_file: Optional[str] = option(
        None, "JSON file with the model's sizes (or use --bert_dir)."
    )
    init_checkpoint: Optional[str] = option(None, "The model's weights.")

    def missing_files(self, *names: str) -> list[str]:
        """Returns a sentence for each of the file options that is not given, nor --bert_dir."""
        if self.bert_dir:
            return []
        return [
            f"--{name} is required (or --bert_dir)" for name in names if not getattr(self, name)
        ]


def window_option(effect: str) -> Any:
    """Returns the stride of windows, with what a command makes of them as part of its help."""
    return option(
        0,
        "Do not cut texts that are longer than --max_seq_length, but read them in windows of that"
        f" length that begin so many tokens apart; {effect} Half of --max_seq_length is a good"
        " choice; 0 cuts. Of a pair, the second text is read so.",
        lower=0,
        alias="window_stride",
    )


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """The length of sequences, and how longer texts are read."""

    max_seq_length: int = option(128, "Longest sequence in tokens.", lower=4)
    doc_stride: int = window_option("")
    window_stride: Optional[int] = None  # the name of doc_stride in earlier versions

    def window_conflicts(self) -> list[str]:
        """Takes the old name for the new one; returns a sentence for what does not go together."""
        before = self.window_stride
        object.__setattr__(self, "window_stride", None)
        if before and self.doc_stride not in (0, before):
            return [
                f"--window_stride={before}, but --doc_stride={self.doc_stride}: both name the same"
                " option; pass --doc_stride only"
            ]
        object.__setattr__(self, "doc_stride", before or self.doc_stride)
        if self.doc_stride < 0:
            return [f"--doc_stride={self.doc_stride}: expected 0, to cut texts, or more"]
        if self.doc_stride > self.max_seq_length:
            return [
                f"--doc_stride={self.doc_stride} would leave out tokens between windows of"
                f" --max_seq_length={self.max_seq_length}; pass at most that"
            ]
        return []


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """Where a model runs, and how it is computed there."""

    seed: int = option(12345, "Fixes data order, dropout and initial values.")
    use_tpu: bool = option(
        False, "Run on a TPU; without it, on the GPUs there are, else on the CPU."
    )
    require_gpu: bool = option(
        False, "Stop with an error, rather than run on the CPU, if there is no GPU."
    )
    precision: str = option(
        "float32",
        "What layers compute in; weights and checkpoints are float32 always. bfloat16 on TPUs,"
        " GPUs since Ampere, and processors with AVX512_BF16 or AMX; float16, with loss scaling, on"
        " GPUs; auto takes bfloat16 where the device"
        " computes it, else float32.",
        choices=["float32", "bfloat16", "float16", "auto"],
    )
    xla: bool = option(
        False,
        "Compile the graph with XLA. Every batch is then padded to full length, so that this pays"
        " where most sequences are long.",
    )
    remove_padding: bool = option(
        True,
        "Compute nothing for padding but attention, which is quicker and gives the same numbers;"
        " never on a TPU or with --xla, where shapes must be known.",
    )
    deterministic: bool = option(
        False,
        "Give the same weights to the last bit in every run on the same machine, interrupted or"
        " not; slower on GPUs.",
    )
    num_threads: int = option(
        0,
        "Threads on the CPU that compute, inside of operations and beside each other: for a machine"
        " that is shared, or a batch system that gives so many cores. 0 for one a core.",
        lower=0,
    )
    tpu_name: Optional[str] = option(None, "The Cloud TPU to use: a name or a grpc:// address.")
    tpu_zone: Optional[str] = option(None, "Zone of the Cloud TPU; found out when not given.")
    gcp_project: Optional[str] = option(None, "Project of the Cloud TPU; found out when not given.")
    master: Optional[str] = option(None, "Address of the TensorFlow master, if there is one.")
    num_tpu_cores: int = option(8, "TPU cores in all; only with --use_tpu.", lower=1)
    iterations_per_loop: int = option(
        1000, "Training steps in one call of a TPU; only with --use_tpu.", lower=1
    )

    @property
    def static_shapes(self) -> bool:
        """Whether every batch has to have the same shape."""
        return self.use_tpu or self.xla

    def compute(self) -> ComputeOptions:
        """Returns how networks are computed there."""
        compute = TPU_COMPUTE if self.use_tpu else DEFAULT_COMPUTE
        return dataclasses.replace(
            compute,
            static_shapes=self.static_shapes,
            remove_padding=self.remove_padding and not self.static_shapes,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints and progress are written, and what becomes of checkpoints there are."""

    save_checkpoints_steps: int = option(1000, "Steps between checkpoints.", lower=1)
    keep_checkpoint_max: int = option(
        5, "How many of the last checkpoints to keep; 0 for all.", lower=0
    )
    keep_checkpoint_every_n_hours: float = option(
        10000.0, "Keep one for each so many hours of training, whatever their number.", lower=0.0
    )
    resume: bool = option(
        True,
        "Go on from the last checkpoint in --output_dir, if there is one; with --noresume, refuse"
        " to train where there is one.",
    )
    overwrite: bool = option(
        False, "Begin anew: remove the checkpoints and logs that --output_dir has."
    )
    profile_steps: Optional[Sequence[str]] = option(
        None, "First and last step of which to write a profile for TensorBoard: 10,15."
    )
    log_every_steps: int = option(
        100,
        "Steps between lines of progress, in the log, in training_log.jsonl and for TensorBoard.",
        lower=1,
    )

    def run_config(self) -> dict[str, Any]:
        """Returns the part that an Estimator's configuration has of it."""
        return {
            "save_checkpoints_steps": self.save_checkpoints_steps,
            "keep_checkpoint_max": self.keep_checkpoint_max,
            "keep_checkpoint_every_n_hours": self.keep_checkpoint_every_n_hours,
            "save_summary_steps": self.log_every_steps,
        }


@dataclasses.dataclass(frozen=True)
class TrainingOptions(DeviceOptions, CheckpointOptions):
    """How weights are trained."""

    train_batch_size: int = option(32, "Sequences in a step, over all devices.", lower=1)
    gradient_accumulation_steps: int = option(
        1,
        "Compute each batch in so many parts, one after the other, and add their gradients: the"
        " same step in less memory. --train_batch_size stays the size of the whole batch.",
        lower=1,
    )
    recompute: bool = option(
        False,
        "Compute layers a second time for their gradients rather than keep what they computed:"
        " the same step in less memory, a third slower.",
    )
    learning_rate: float = option(5e-5, "Peak learning rate.", lower=0.0)
    learning_rate_schedule: str = option(
        "published",
        "How the rate goes on after warm-up. published: linear from step 0, with a small drop where"
        " warm-up ends; linear: without it; cosine: half a wave down to 0; constant.",
        choices=["published", "linear", "cosine", "constant"],
    )
    optimizer: str = option(
        "adamw", "adamw as published; lamb for batches of thousands.", choices=["adamw", "lamb"]
    )
    adam_bias_correction: bool = option(
        False,
        "Correct AdamW's moments for starting at zero, as in its paper and not as published;"
        " steadier fine-tuning on little data.",
    )
    layer_decay: float = option(
        1.0,
        "The learning rate of each layer as a share of that of the layer above it, 0.8 say; 1 for"
        " the same rate everywhere.",
        lower=0.0,
        upper=1.0,
    )
    freeze: Optional[Sequence[str]] = option(
        None,
        "Parts to leave as they are, separated by commas: embeddings, encoder, pooler, layers"
        " counted from 0 (3), ranges of them (0-5).",
    )

    def compute(self) -> ComputeOptions:
        """Returns how networks are computed."""
        return dataclasses.replace(super().compute(), recompute=self.recompute)

    def training_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        conflicts = []
        parts = self.gradient_accumulation_steps
        if self.train_batch_size % parts:
            conflicts.append(
                f"--train_batch_size={self.train_batch_size} is no multiple of"
                f" --gradient_accumulation_steps={parts}, the parts it is computed in"
            )
        if self.use_tpu and parts > 1:
            conflicts.append("--gradient_accumulation_steps: not on a TPU; leave it out")
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and all(step.isdecimal() for step in steps)):
            conflicts.append(
                f"--profile_steps={','.join(steps)}: expected the first and the last step: 10,15"
            )
        return conflicts


# Members of groups of FinetuneOptions.
FINETUNING = (
    "num_train_epochs",
    "warmup_proportion",
    "head_learning_rate",
    "unfreeze_schedule",
    "ema_decay",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)
CHOOSING_THE_BEST = ("evaluate_every", "best_metric", "early_stopping_patience", "num_runs")


@dataclasses.dataclass(frozen=True)
class FinetuneOptions(TrainingOptions):
    """What every task that is fine-tuned for has: actions, length of training, the best model."""

    do_train: bool = option(
        False,
        "Train. If no --do_... is given with files of your own, all that they are for is done.",
    )
    do_eval: bool = option(False, "Evaluate.")
    do_predict: bool = option(False, "Predict.")
    num_train_epochs: float = option(
        3.0, "Passes over the training data; may be a fraction.", lower=0.0
    )
    warmup_proportion: float = option(
        0.1,
        "Share of the steps over which the learning rate rises from zero.",
        lower=0.0,
        upper=1.0,
    )
    head_learning_rate: Optional[float] = option(
        None,
        "Peak learning rate of the new layers over the encoder, 1e-3 say; without it,"
        " --learning_rate.",
        lower=0.0,
    )
    unfreeze_schedule: Optional[str] = option(
        None,
        "Train only the pooler and what is above it at first, and every so many steps, or every"
        " epoch, one layer more, from the highest to the embeddings (gradual unfreezing).",
    )
    ema_decay: float = option(
        0.0,
        "Keep an exponential moving average of the weights over the steps, with this decay, 0.98"
        " say. The average is the model: it is evaluated, and used wherever the checkpoint is"
        " read; training goes on from the weights. 0 for none.",
        lower=0.0,
        upper=0.99999,
    )
    hidden_dropout_prob: Optional[float] = option(
        None,
        "Dropout in training of embeddings, of the output of every part of a layer, and of what the"
        " head reads; without it, what the model's config says.",
        lower=0.0,
        upper=0.9,
    )
    attention_probs_dropout_prob: Optional[float] = option(
        None,
        "Dropout of attention weights in training; without it, what the model's config says.",
        lower=0.0,
        upper=0.9,
    )
    evaluate_every: Optional[str] = option(
        None,
        "Evaluate while training, every so many steps or every epoch, and keep the best model in"
        " best/ below --output_dir.",
    )
    best_metric: Optional[str] = option(
        None,
        "What decides which is best: a metric of eval_results.txt without eval_; without it,"
        " what the task is judged by (accuracy, f1_micro, spearman).",
    )
    early_stopping_patience: int = option(
        0, "Stop after so many evaluations without a better one; 0 for never.", lower=0
    )
    num_runs: int = option(
        1,
        "Train so many times with seeds --seed, --seed + 1, ... in run_1/, run_2/, ...; the best"
        " model is kept in best/, runs.tsv compares them.",
        lower=1,
    )
    checkpoint: Optional[str] = option(
        None,
        "The model to evaluate and predict with: best, last, or a path; without it, the best if"
        " there is one.",
    )
    show_examples: int = show_examples_option()
    eval_batch_size: int = option(
        8, "Examples in a batch of evaluation; more where they are short (--batch_tokens).", lower=1
    )
    predict_batch_size: int = option(
        8, "Examples in a batch of prediction; more where they are short (--batch_tokens).", lower=1
    )
    batch_tokens: int = batch_tokens_option("A batch of evaluation or prediction")

    def told_or(self, *there: bool) -> tuple[bool, bool, bool]:
        """Returns whether to train, evaluate and predict: as told, or as there is data for."""
        told = (self.do_train, self.do_eval, self.do_predict)
        train, evaluate, predict = told if any(told) else there
        return train, evaluate, predict

    def finetune_conflicts(self, trains: bool) -> list[str]:
        """Returns a sentence for everything about fine-tuning that does not go together."""
        conflicts = []
        for name in ("evaluate_every", "unfreeze_schedule"):
            every = getattr(self, name)
            if every not in (None, "epoch") and not (every.isdecimal() and int(every)):
                conflicts.append(f"--{name}={every}: expected epoch, or a number of steps")
        every = self.evaluate_every
        if self.head_learning_rate is not None and not self.learning_rate:
            conflicts.append(
                "--head_learning_rate goes with a --learning_rate above 0; to train nothing but the"
                " head, pass --freeze=embeddings,encoder,pooler"
            )
        if self.checkpoint == "best" and trains and not every and self.num_runs == 1:
            conflicts.append("--checkpoint=best: --evaluate_every says when to look for the best")
        if self.early_stopping_patience and not every:
            conflicts.append("--early_stopping_patience goes with --evaluate_every")
        return conflicts

    def train_steps(self, num_examples: int) -> int:
        """Returns the training steps that --num_train_epochs make, as published."""
        return int(num_examples / self.train_batch_size * self.num_train_epochs)

    def steps_between_evaluations(self, num_examples: int) -> int:
        """Returns how often to evaluate while training; 0 for never."""
        return self._steps(self.evaluate_every, num_examples)

    def steps_between_layers(self, num_examples: int) -> int:
        """Returns after how many steps a layer more is trained; 0 for all from the start."""
        return self._steps(self.unfreeze_schedule, num_examples)

    def _steps(self, every: Optional[str], num_examples: int) -> int:
        """Returns the steps of a period: "epoch", or their number; 0 for None."""
        if every is None:
            return 0
        return max(1, num_examples // self.train_batch_size) if every == "epoch" else int(every)

    def head_factor(self) -> float:
        """Returns the head's learning rate as a multiple of the others'."""
        head = self.head_learning_rate
        return 1.0 if head is None else head / self.learning_rate

    def dropout(self) -> dict[str, float]:
        """Returns the dropout that is asked for, by its names in a model's config."""
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}
