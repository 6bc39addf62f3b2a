r"""Finds a learning rate to begin with: a range test, in which the rate rises until the loss does.

Reads   a command line of bert classify that trains: the same options, with find-lr in the place of
        classify. It trains as that does, in steps of the same kind, but for the learning rate.
Writes  to --output_dir lr_range.tsv (step, rate, loss, smoothed loss) and, where matplotlib is
        installed, lr_range.png; no model. The rate where the loss falls fastest, and that where it
        is least, go to standard output.

What does not count here: --learning_rate, its schedule and warm-up, --num_train_epochs,
--unfreeze_schedule, --ema_decay, --num_runs, and the flags of evaluation and prediction.

Example:
  bert find-lr --train_file=sample_data/reviews/train.tsv --bert_dir=out/pretrained \
    --output_dir=out/rate --max_seq_length=32
"""

import dataclasses
import math
import os
from typing import Any, ClassVar, Optional

from absl import logging

import run_classifier
from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import check, option
from bert_toolkit.tasks import start

TABLE, PICTURE = "lr_range.tsv", "lr_range.png"


@dataclasses.dataclass(frozen=True)
class Options(run_classifier.Options):
    """The options of bert classify, and the range."""

    output_dir: str = option(
        "", "Directory for the table and the picture; no model is written.", required=True
    )
    lowest_rate: float = option(1e-7, "Learning rate of the first step.", lower=1e-12)
    highest_rate: float = option(
        1e-1, "Learning rate of the last step, if the loss does not diverge before.", lower=1e-12
    )
    range_steps: int = option(
        200, "Steps from the lowest to the highest rate; more make a smoother curve.", lower=20
    )
    # Not an option here: one training is made, on all rows.
    learning_curve: Optional[list[str]] = None

    GROUPS: ClassVar = {
        "Range test": ("lowest_rate", "highest_rate", "range_steps"),
        **run_classifier.Options.GROUPS,
    }

    def data_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        conflicts = super().data_conflicts()
        if self.is_custom and not self.train_file:
            conflicts = ["--train_file is required (or --task_name)"]
        if self.lowest_rate >= self.highest_rate:
            conflicts.append(
                f"--lowest_rate={self.lowest_rate:g} is not below"
                f" --highest_rate={self.highest_rate:g}; the rate is to rise"
            )
        return conflicts

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns that there is training alone."""
        return True, False, False


def run(options: Options) -> Any:
    """Makes the test, writes table and picture, and prints the rates; returns the Curve.

    Raises:
      UserError: an input cannot be used, or the loss says nothing of the rate.
    """
    check(options.missing_files("bert_config_file", "vocab_file"))
    options = start.resolve(options)
    from bert_toolkit.tasks import finetune, range_test
    from bert_toolkit.tasks.classification.classification import Classification
    from bert_toolkit.training import precision

    actions, model = finetune.begin(options)
    data = run_classifier.load(options, actions)
    options = dataclasses.replace(precision.resolve(options), use_tpu=False)
    curve = range_test.run(
        Classification(data, options, model.tokenizer()),
        model,
        options,
        options.lowest_rate,
        options.highest_rate,
        options.range_steps,
    )
    if len(curve.losses) < range_test.FEWEST_STEPS:
        raise UserError(
            f"the loss was not a number after {len(curve.losses)} steps; pass a smaller"
            f" --lowest_rate than {options.lowest_rate:g}"
        )
    _write(options.output_dir, curve)
    print(_told(curve))
    return curve


def _write(directory: str, curve: Any) -> None:
    from bert_toolkit.tasks import range_test

    table = os.path.join(directory, TABLE)
    lines = ["step\tlearning_rate\tloss\tsmoothed_loss\n"]
    rows = zip(curve.rates, curve.losses, curve.smoothed)
    for number, (rate, loss, smoothed) in enumerate(rows, 1):
        lines.append(f"{number}\t{rate:.6e}\t{loss:.6f}\t{smoothed:.6f}\n")
    files.write_text(table, "".join(lines))
    logging.info("the curve: %s", table)
    picture = os.path.join(directory, PICTURE)
    try:
        with files.replacing([picture]) as [name]:
            range_test.draw(name, curve)
    except ImportError:
        logging.warning(
            "no %s: matplotlib is not installed; pip install 'bert-toolkit[plot]'", picture
        )
    else:
        logging.info("the picture: %s", picture)


def _told(curve: Any) -> str:
    """Returns what the test found, in words."""
    end = "diverged" if curve.has_diverged else "did not diverge"
    lines = [f"the loss {end}; {len(curve.losses)} steps, up to a rate of {curve.rates[-1]:.1e}"]
    steepest = curve.steepest()
    lines.append(f"least loss       {curve.least():.1e}")
    if math.isnan(steepest):
        lines.append("steepest fall    none: the loss does not fall; does `bert check` find why?")
    else:
        lines.append(f"steepest fall    {steepest:.1e}")
        lines.append(f"suggested        --learning_rate={steepest:.1e}")
    return "\n".join(lines)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
