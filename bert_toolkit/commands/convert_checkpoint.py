r"""Converts models between Google's layout and Hugging Face's, and looks into checkpoints.

Reads   a model directory in either layout, or the output of a stage (--bert_dir).
Writes  to --output_dir a model directory in the other, with encoder and heads and without what
        only training needs; or, with --inspect or --compare, a table to standard output.

Examples:
  bert convert --bert_dir=out/reviews --output_dir=out/for_transformers

  bert convert --bert_dir=all-MiniLM-L6-v2 --to=google --output_dir=out/minilm

  bert convert --bert_dir=out/pretrained --inspect

  bert convert --bert_dir=out/pretrained --output_dir=out/averaged \
    --average=out/pretrained/model.ckpt-400,out/pretrained/model.ckpt-600
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.io.progress import size
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option

HUGGING_FACE, GOOGLE = "hugging_face", "google"


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions):
    """The options of this program."""

    output_dir: Optional[str] = option(None, "Model directory to write.")
    to: str = option(HUGGING_FACE, "The layout to write.", choices=[HUGGING_FACE, GOOGLE])
    dtype: str = option(
        "float32",
        "What to store weights in; half as large, and a little less exact, in 16 bits.",
        choices=["float32", "float16", "bfloat16"],
    )
    average: Optional[Sequence[str]] = option(
        None, "Checkpoints whose mean to take instead of the model's weights."
    )
    inspect: bool = option(False, "List variables, their shapes and sizes.")
    compare: Optional[str] = option(
        None, "Another checkpoint: list by how much the variables differ."
    )
    init_checkpoint: Optional[str] = option(None, "The model's weights (or use --bert_dir).")

    GROUPS: ClassVar = {
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "What to do": ("output_dir", "to", "dtype", "average", "inspect", "compare"),
    }

    def __post_init__(self):
        conflicts = self.missing_files("bert_config_file", "init_checkpoint")
        if not (self.output_dir or self.inspect or self.compare):
            conflicts.append("nothing to do: pass --output_dir, --inspect or --compare")
        if self.dtype == "bfloat16" and self.to == GOOGLE:
            conflicts.append("--dtype=bfloat16: only for --to=hugging_face; use float16 or float32")
        check(conflicts)


def run(options: Options) -> None:
    """Converts, averages, inspects and compares as asked.

    Raises:
      UserError: an input cannot be used.
    """
    from bert_toolkit.checkpoints import checkpoint_files, model_directory

    model = model_directory.find(options)
    assert model.init_checkpoint
    if options.inspect:
        print(listing(checkpoint_files.shapes_and_types(model.init_checkpoint)), end="", flush=True)
    if not (options.compare or options.output_dir):
        return
    weights = read(options, model.init_checkpoint)
    if options.compare:
        other = checkpoint_files.read(checkpoint_files.find(options.compare, "compare"))
        print(comparison(weights, other), end="", flush=True)
    if options.output_dir:
        write(options, model, weights)


def read(options: Options, checkpoint: str) -> dict[str, np.ndarray]:
    """Returns the weights of the model, or the mean of those of --average."""
    from bert_toolkit.checkpoints import checkpoint_files

    if not options.average:
        return checkpoint_files.read(checkpoint)
    all_weights = [
        checkpoint_files.read(checkpoint_files.find(path, "average")) for path in options.average
    ]
    first = all_weights[0]
    for path, weights in zip(options.average, all_weights):
        for name in first.keys() | weights.keys():
            shapes = [found[name].shape if name in found else None for found in (first, weights)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"--average: {name} has shape {shapes[1]} in {path}, {shapes[0]} in"
                    f" {options.average[0]}; expected checkpoints of one model"
                )
    return {
        name: np.mean([weights[name] for weights in all_weights], axis=0, dtype=np.float64).astype(
            value.dtype
        )
        for name, value in first.items()
    }


def write(options: Options, model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Writes the model directory."""
    from bert_toolkit.checkpoints import (
        checkpoint_files,
        hugging_face,
        model_directory,
        training_notes,
    )

    assert options.output_dir
    assert model.init_checkpoint
    if model.vocab_file:
        vocabulary = training_notes.Vocabulary.of(model.vocab_file)
        training_notes.check_vocabulary(model.init_checkpoint, vocabulary)
    files.make_directory(options.output_dir, "output_dir")
    stored = hugging_face.stored_as(weights, options.dtype)
    origin = os.path.dirname(model.init_checkpoint)
    problem, settings = problem_of(origin), task_file.settings([origin])
    if options.to == GOOGLE:
        model_directory.write(options.output_dir, model, problem.labels if problem else ())
        if problem:
            task_file.write(options.output_dir, problem, settings=settings)
        checkpoint_files.save(
            os.path.join(options.output_dir, checkpoint_files.GOOGLE_NAME), stored
        )
    else:
        if stored.pop("crf/transitions", None) is not None:
            settings["crf"] = False
            logging.warning(
                "%s: its crf/transitions are left out, as transformers has no CRF; each word's tag"
                " is then the likeliest by itself, which may break the scheme's rules",
                model.init_checkpoint,
            )
        hugging_face.write(
            options.output_dir,
            model.config,
            stored,
            model.vocab_file,
            model.rules,
            problem,
            settings,
        )
    total = sum(value.nbytes for value in stored.values())
    logging.info(
        "wrote %s: %d variables, %s, for %s",
        options.output_dir,
        len(stored),
        size(total),
        "the stages" if options.to == GOOGLE else hugging_face.architecture(list(stored), problem),
    )


def problem_of(directory: str) -> Optional[Any]:
    """Returns the problems.Problem of a fine-tuned model, of either layout; None of others."""
    from bert_toolkit import problems
    from bert_toolkit.checkpoints import model_directory

    found = task_file.read([directory])
    path = os.path.join(directory, model_directory.LABELS)
    if found is None and files.exists(path):  # as earlier versions converted
        return problems.Problem(problems.SINGLE, tuple(files.read_text(path).splitlines()))
    return found


def listing(variables: Mapping[str, tuple[Sequence[int], np.dtype]]) -> str:
    """Returns a table of variables: name, shape, type, bytes."""
    lines, total, count = [], 0, 0
    for name, (shape, dtype) in sorted(variables.items()):
        elements = int(np.prod(shape))
        total, count = total + elements * dtype.itemsize, count + elements
        sizes = "x".join(map(str, shape)) or "scalar"
        lines.append(f"{name}\t{sizes}\t{dtype.name}\t{elements * dtype.itemsize}")
    lines.append(f"{len(variables)} variables\t{count} numbers\t\t{total}")
    return "\n".join(lines) + "\n"


def comparison(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str:
    """Returns a table of variables and their largest difference."""
    lines = []
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            lines.append(f"{name}\tonly in the {'second' if name not in one else 'first'}")
        elif one[name].shape != other[name].shape:
            lines.append(f"{name}\tshapes {one[name].shape} and {other[name].shape}")
        else:
            difference = one[name].astype(np.float64) - other[name].astype(np.float64)
            largest = np.abs(difference).max() if difference.size else 0.0
            lines.append(f"{name}\t{largest:.3g}" if largest else f"{name}\tequal")
    return "\n".join(lines) + "\n"


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
