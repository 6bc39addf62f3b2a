"""The command line of a stage: flags that stages share, --help, one-sentence errors, exit codes.

A stage calls `run(main, __doc__, define_flags)`; nothing is defined when a module is imported.
"""

import atexit
import dataclasses
import gc
import logging as python_logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Optional, TypeVar

from absl import flags, logging

from bert_toolkit import cluster, tensorflow_start
from bert_toolkit.engine import DEFAULT_ENGINE, TPU_ENGINE, Engine
from bert_toolkit.errors import UserError

Options = TypeVar("Options")

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
EXIT_TERMINATED = 143  # and by SIGTERM

_groups: dict[str, list[str]] = {}


def run(main: Callable[[Any], None], doc: str, define_flags: Callable[[], None]) -> NoReturn:
    """Parses the command line, calls `main(FLAGS)` and exits.

    A UserError is printed as "error: ..." on stderr with exit code 1, a wrong flag with 2, Ctrl-C
    with 130. --debug adds the traceback; any other exception is a bug of ours and keeps its own.

    Args:
      main: takes the parsed FLAGS.
      doc: the stage's docstring, printed at the top of --help.
      define_flags: defines the stage's flags, through `group`.
    """
    # TensorFlow's modules and graphs are a million objects that stay; going through them again and
    # again for cycles takes a fifth of the time to start.
    gc.set_threshold(100_000, 20, 20)
    _define_all(define_flags)
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        _parse(sys.argv, doc)
        _quiet_logs()
        main(flags.FLAGS)
        sys.stdout.flush()
    except UserError as error:
        _tell(error)
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != EXIT_TERMINATED:
            raise
        hint = f" ({stop})" if isinstance(stop, KeyboardInterrupt) and str(stop) else ""
        print(f"stopped before the end{hint}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_TERMINATED)
    except BrokenPipeError:
        # The reader of our standard output went away (`| head`): that is no error worth words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    _end()


def _end() -> NoReturn:
    """Ends the program with success, at once if TensorFlow is in it, which takes a second to go."""
    if "tensorflow" in sys.modules:
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(0)
    sys.exit(0)


def _raise_terminated(signum, frame):
    """Ends by an exception, so that unfinished files are removed on the way out."""
    sys.exit(EXIT_TERMINATED)


def _tell(error: UserError) -> None:
    if flags.FLAGS.debug:
        traceback.print_exc()
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)


def check(problems: list[str]) -> None:
    """Raises one UserError with all `problems`, a line each, if there are any."""
    if problems:
        raise UserError("\n".join(problems))


def options_from_flags(options_class: type[Options], values: Any) -> Options:
    """Fills a dataclass of options from the flags of the same names."""
    names = [field.name for field in dataclasses.fields(options_class)]  # type: ignore[arg-type]
    return options_class(**{name: values[name].value for name in names})


# --- Flags that stages share, with the names, meanings and defaults of the published scripts ---


def define_tokenizer_flags() -> None:
    """Flags that say how text becomes token ids."""
    flags.DEFINE_string(
        "vocab_file", None, "The vocabulary the model was trained with, one token a line."
    )
    define_rule_flags()


def define_rule_flags() -> None:
    """Flags that say how text is cleaned and cut, whatever the vocabulary."""
    flags.DEFINE_boolean(
        "do_lower_case",
        None,
        "Lower-case the text and strip accents: true for uncased models, false for cased ones."
        " Without this flag, what the model directory says (tokenizer_config.json), else true.",
    )
    flags.DEFINE_boolean(
        "strip_accents",
        None,
        "Strip accents; without this flag, when lower-casing.",
    )
    flags.DEFINE_boolean(
        "tokenize_chinese_chars",
        None,
        "Make a token of every Chinese character; without this flag, true.",
    )
    flags.DEFINE_list(
        "never_split",
        None,
        "Tokens of the vocabulary, separated by commas, that stay whole in text: [MASK],[E1].",
    )


def define_window_flags(effect: str) -> None:
    """Flags that say how texts longer than a sequence are read."""
    flags.DEFINE_integer(
        "doc_stride",
        0,
        "Do not cut texts that are longer than --max_seq_length, but read them in windows of that"
        f" length that begin so many tokens apart; {effect} Half of --max_seq_length is a good"
        " choice; 0 cuts. Of a pair, the second text is read so.",
        lower_bound=0,
    )
    flags.DEFINE_alias("window_stride", "doc_stride")  # its name in earlier versions


def define_model_flags(init_checkpoint_help: str) -> None:
    """Flags that name the model's files."""
    flags.DEFINE_string(
        "bert_dir",
        None,
        "A model directory, in place of --bert_config_file, --vocab_file and --init_checkpoint:"
        " the output directory of a stage, Google's layout (bert_config.json, vocab.txt,"
        " bert_model.ckpt) or Hugging Face's (config.json, vocab.txt or tokenizer.json,"
        " model.safetensors). A file flag given as well wins.",
    )
    flags.DEFINE_string(
        "bert_config_file", None, "JSON file with the model's sizes (or use --bert_dir)."
    )
    flags.DEFINE_string("init_checkpoint", None, init_checkpoint_help)


@dataclasses.dataclass(frozen=True)
class RuleOptions:
    """The flags that say how text is cleaned and cut; None where a flag is not given."""

    do_lower_case: Optional[bool] = None
    strip_accents: Optional[bool] = None
    tokenize_chinese_chars: Optional[bool] = None
    never_split: Optional[Sequence[str]] = None


@dataclasses.dataclass(frozen=True)
class TokenizerOptions(RuleOptions):
    """The flags that say how text becomes token ids."""

    vocab_file: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class ModelOptions(TokenizerOptions):
    """The flags that name a model's files; a stage's options build on it."""

    bert_dir: Optional[str] = None
    bert_config_file: Optional[str] = None
    init_checkpoint: Optional[str] = None

    def missing_files(self, *names: str) -> list[str]:
        """Returns a sentence for each of the file flags that is not given, nor --bert_dir."""
        if self.bert_dir:
            return []
        return [
            f"--{name} is required (or --bert_dir)" for name in names if not getattr(self, name)
        ]


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """The flags of a text's length; the options of a stage that reads texts build on it.

    Attributes:
      max_seq_length: longest sequence in tokens.
      doc_stride: tokens from the beginning of a window to that of the next; 0 to cut texts.
      window_stride: the name of doc_stride in earlier versions.
    """

    max_seq_length: int = 128
    doc_stride: int = 0
    window_stride: Optional[int] = None

    def window_problems(self) -> list[str]:
        """Takes the old name for the new one; returns a sentence for what does not go together."""
        before = self.window_stride
        object.__setattr__(self, "window_stride", None)
        if before and self.doc_stride not in (0, before):
            return [f"--window_stride={before} is the old name of --doc_stride={self.doc_stride}"]
        object.__setattr__(self, "doc_stride", before or self.doc_stride)
        if self.doc_stride > self.max_seq_length:
            return [
                f"--doc_stride={self.doc_stride} would leave out tokens between windows of"
                f" --max_seq_length={self.max_seq_length}; pass at most that"
            ]
        return []


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """The flags that say where a model runs; a stage's options build on it."""

    seed: int = 12345
    use_tpu: bool = False
    tpu_name: Optional[str] = None
    tpu_zone: Optional[str] = None
    gcp_project: Optional[str] = None
    master: Optional[str] = None
    num_tpu_cores: int = 8
    iterations_per_loop: int = 1000
    require_gpu: bool = False
    precision: str = "float32"
    xla: bool = False
    remove_padding: bool = True
    deterministic: bool = False

    @property
    def static_shapes(self) -> bool:
        """Whether every batch has to have the same shape."""
        return self.use_tpu or self.xla

    def engine(self) -> Engine:
        """Returns how networks are computed there."""
        engine = TPU_ENGINE if self.use_tpu else DEFAULT_ENGINE
        return dataclasses.replace(
            engine,
            static_shapes=self.static_shapes,
            remove_padding=self.remove_padding and not self.static_shapes,
            precision=self.precision,
        )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """The flags of checkpoints; the options of a stage that trains build on it."""

    save_checkpoints_steps: int = 1000
    keep_checkpoint_max: int = 5
    keep_checkpoint_every_n_hours: float = 10000.0
    profile_steps: Optional[Sequence[str]] = None

    def run_config(self) -> dict[str, Any]:
        """Returns what an Estimator's configuration is told of it."""
        return {
            "save_checkpoints_steps": self.save_checkpoints_steps,
            "keep_checkpoint_max": self.keep_checkpoint_max,
            "keep_checkpoint_every_n_hours": self.keep_checkpoint_every_n_hours,
        }


@dataclasses.dataclass(frozen=True)
class TrainingOptions(DeviceOptions, CheckpointOptions):
    """The flags of training; the options of a stage that trains build on it."""

    train_batch_size: int = 32
    learning_rate: float = 5e-5
    optimizer: str = "adamw"
    learning_rate_schedule: str = "published"
    adam_bias_correction: bool = False
    layer_decay: float = 1.0
    freeze: Optional[Sequence[str]] = None
    gradient_accumulation_steps: int = 1
    recompute: bool = False
    resume: bool = True
    overwrite: bool = False

    def engine(self) -> Engine:
        """Returns how networks are computed."""
        return dataclasses.replace(super().engine(), recompute=self.recompute)

    def training_problems(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        problems = []
        parts = self.gradient_accumulation_steps
        if self.train_batch_size % parts:
            problems.append(
                f"--train_batch_size={self.train_batch_size} is no multiple of"
                f" --gradient_accumulation_steps={parts}, the parts it is computed in"
            )
        if self.use_tpu and parts > 1:
            problems.append("--gradient_accumulation_steps: not on a TPU; leave it out")
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and all(step.isdigit() for step in steps)):
            problems.append(
                f"--profile_steps={','.join(steps)}: expected the first and the last step: 10,15"
            )
        if cluster.size() > 1 and self.overwrite:
            problems.append(
                "--overwrite: not on several hosts, where one might remove what another has"
                " written; empty --output_dir first"
            )
        return problems


def define_training_flags() -> None:
    """Flags that say how weights are optimised."""
    flags.DEFINE_integer(
        "train_batch_size", 32, "Sequences in a step, over all devices.", lower_bound=1
    )
    flags.DEFINE_integer(
        "gradient_accumulation_steps",
        1,
        "Compute each batch in so many parts, one after the other, and add their gradients: the"
        " same step in less memory. --train_batch_size stays the size of the whole batch.",
        lower_bound=1,
    )
    flags.DEFINE_boolean(
        "recompute",
        False,
        "Compute layers a second time for their gradients rather than keep what they computed:"
        " the same step in less memory, a third slower.",
    )
    flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate.", lower_bound=0.0)
    flags.DEFINE_enum(
        "learning_rate_schedule",
        "published",
        ["published", "linear", "cosine", "constant"],
        "How the rate goes on after warm-up. published: linear from step 0, with a small drop where"
        " warm-up ends; linear: without it; cosine: half a wave down to 0; constant.",
    )
    flags.DEFINE_enum(
        "optimizer",
        "adamw",
        ["adamw", "lamb"],
        "adamw as published; lamb for batches of thousands.",
    )
    flags.DEFINE_boolean(
        "adam_bias_correction",
        False,
        "Correct AdamW's moments for starting at zero, as in its paper and not as published;"
        " steadier fine-tuning on little data.",
    )
    flags.DEFINE_float(
        "layer_decay",
        1.0,
        "The learning rate of each layer as a share of that of the layer above it, 0.8 say; 1 for"
        " the same rate everywhere.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_list(
        "freeze",
        None,
        "Parts to leave as they are, separated by commas: embeddings, encoder, pooler, layers"
        " counted from 0 (3), ranges of them (0-5).",
    )


def define_checkpoint_flags() -> None:
    """Flags that say when checkpoints are written and how many are kept."""
    flags.DEFINE_integer(
        "save_checkpoints_steps", 1000, "Steps between checkpoints.", lower_bound=1
    )
    flags.DEFINE_integer(
        "keep_checkpoint_max",
        5,
        "How many of the last checkpoints to keep; 0 for all.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "keep_checkpoint_every_n_hours",
        10000.0,
        "Keep one for each so many hours of training, whatever their number.",
        lower_bound=0.0,
    )
    flags.DEFINE_boolean(
        "resume",
        True,
        "Go on from the last checkpoint in --output_dir, if there is one; with --noresume, refuse"
        " to train where there is one.",
    )
    flags.DEFINE_boolean(
        "overwrite", False, "Begin anew: remove the checkpoints and logs that --output_dir has."
    )
    flags.DEFINE_list(
        "profile_steps",
        None,
        "First and last step of which to write a profile for TensorBoard: 10,15.",
    )


def define_device_flags() -> None:
    """Flags that say where a model runs."""
    flags.DEFINE_integer("seed", 12345, "Fixes data order, dropout and initial values.")
    flags.DEFINE_boolean(
        "use_tpu", False, "Run on a TPU; without it, on the GPUs there are, else on the CPU."
    )
    flags.DEFINE_boolean(
        "require_gpu", False, "Stop with an error, rather than run on the CPU, if there is no GPU."
    )
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "float16"],
        "What layers compute in; weights and checkpoints are float32 always. bfloat16 on TPUs,"
        " GPUs since Ampere, and processors with AVX512_BF16 or AMX; float16, with loss scaling, on"
        " GPUs.",
    )
    flags.DEFINE_boolean(
        "xla",
        False,
        "Compile the graph with XLA. Every batch is then padded to full length, so that this pays"
        " where most sequences are long.",
    )
    flags.DEFINE_boolean(
        "remove_padding",
        True,
        "Compute nothing for padding but attention, which is quicker and gives the same numbers;"
        " never on a TPU or with --xla, where shapes must be known.",
    )
    flags.DEFINE_boolean(
        "deterministic",
        False,
        "Give the same weights to the last bit in every run on the same machine, interrupted or"
        " not; slower on GPUs.",
    )
    flags.DEFINE_string("tpu_name", None, "The Cloud TPU to use: a name or a grpc:// address.")
    flags.DEFINE_string("tpu_zone", None, "Zone of the Cloud TPU; found out when not given.")
    flags.DEFINE_string("gcp_project", None, "Project of the Cloud TPU; found out when not given.")
    flags.DEFINE_string("master", None, "Address of the TensorFlow master, if there is one.")
    flags.DEFINE_integer(
        "num_tpu_cores", 8, "TPU cores in all; only with --use_tpu.", lower_bound=1
    )
    flags.DEFINE_integer(
        "iterations_per_loop",
        1000,
        "Training steps in one call of a TPU; only with --use_tpu.",
        lower_bound=1,
    )


# --- Flags: definition and help ---


class group:
    """Groups the flags that are defined inside the `with` block under a title in --help."""

    def __init__(self, title: str):
        self.title = title

    def __enter__(self) -> None:
        self.before = set(flags.FLAGS)

    def __exit__(self, *exc_info) -> None:
        defined = [name for name in flags.FLAGS if name not in self.before]
        _groups.setdefault(self.title, []).extend(defined)


def _define_all(define_flags: Callable[[], None]) -> None:
    define_flags()
    with group("Running"):
        flags.DEFINE_boolean("debug", False, "Show tracebacks, and TensorFlow's own log.")
    for names in _groups.values():
        for name in names:
            if len(name) > 1:
                flags.FLAGS.register_key_flag_for_module("__main__", flags.FLAGS[name])


def _parse(argv: list[str], doc: str) -> None:
    if {"--help", "-help", "-h", "--helpshort", "--helpfull"} & set(argv[1:]):
        print(_help(doc), flush=True)
        sys.exit(0)
    try:
        stray = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        _usage_error(_plain_flag_error(str(error)))
    if stray:
        previous = argv[argv.index(stray[0]) - 1].lstrip("-")
        boolean = previous in flags.FLAGS and flags.FLAGS[previous].boolean
        hint = (
            f"write --{previous}={stray[0]}" if boolean else "every option is written --name=value"
        )
        _usage_error(f"unexpected argument {stray[0]!r}; {hint}")


def _usage_error(message: str) -> NoReturn:
    print(f"error: {message}\nTry --help.", file=sys.stderr)
    sys.exit(EXIT_USAGE)


# What absl says of a flag's value, and what was expected in plain words.
_FLAG_ERRORS = (
    (r"invalid literal for int", "a whole number"),
    (r"could not convert", "a number"),
    (r"\('Non-boolean argument", "true or false"),
    (r"\S+ is not (?:an? )?(.+)", "{}"),
)


def _plain_flag_error(message: str) -> str:
    missing = re.findall(r"Flag --(\w+) must have a value other than None", message)
    if missing:
        return f"--{missing[0]} is required"
    for pattern, expected in _FLAG_ERRORS:
        match = re.match(r"flag (--\w+=.*?): " + pattern, message)
        if match:
            return f"{match.group(1)}: expected {expected.format(*match.groups()[1:])}"
    return re.sub(r"^flag (?=--)", "", message.replace("\n", " "))


def _help(doc: str) -> str:
    """The stage's docstring, then its flags by group in order of definition."""
    lines = [doc.strip(), ""]
    for title, names in _groups.items():
        lines += [f"{title}:"]
        for name in names:
            flag = flags.FLAGS[name]
            default = "" if flag.default is None else f" (default: {flag.default})"
            spelling = f"--[no]{name}" if flag.boolean else f"--{name}=..."
            text = " ".join(f"{flag.help}{default}".split())
            lines += [f"  {spelling}", f"      {text}"]
        lines += [""]
    return "\n".join(lines)


def _quiet_logs() -> None:
    """Plain log lines of ours on stderr; TensorFlow's own only with --debug."""
    debug = flags.FLAGS.debug
    tensorflow_start.prepare(quiet=not debug)
    if flags.FLAGS["verbosity"].present == 0:
        logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    if not debug:
        # Its warnings are about functions that TensorFlow itself calls, its notes about sessions
        # and graphs.
        python_logging.getLogger("tensorflow").setLevel(python_logging.ERROR)
        warnings.filterwarnings("ignore", module="tensorflow")
        logging.get_absl_handler().setFormatter(_PlainFormatter())


class _PlainFormatter(python_logging.Formatter):
    """Our own lines as they are, warnings marked as such."""

    def format(self, record) -> str:
        prefix = "warning: " if record.levelno == python_logging.WARNING else ""
        return prefix + record.getMessage()
