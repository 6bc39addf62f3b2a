"""What the commands that fine-tune do first, before TensorFlow is imported."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Optional

from bert_toolkit.io import files
from bert_toolkit.options import check, option
from bert_toolkit.training import cluster

BEST = "best"  # the directory of the best model, below --output_dir


def init_checkpoint_option() -> Any:
    """Returns the option of the weights to start from."""
    return option(
        None,
        "Weights to start from where --output_dir has no checkpoint yet: a prefix such as"
        " bert_model.ckpt, its .index file, a directory, or a Hugging Face model.safetensors.",
    )


def output_dir_option() -> Any:
    """Returns the option of the directory of the model."""
    return option("", "Directory for the model and the results.", required=True)


def run(options: Any, run_once: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Completes the options and calls `run_once`, with each seed where several are asked for.

    Returns the metrics on the main dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    options = resolve(options)
    if options.num_runs > 1:
        # TensorFlow is imported when a model is needed: --help and mistakes answer at once.
        from bert_toolkit.tasks import seeds

        return seeds.run(options, run_once)
    return run_once(options)


def resolve(options: Any) -> Any:
    """Completes FinetuneOptions with ModelOptions by what is there: a model, other hosts.

    Raises:
      UserError: no model is named, or an option is not for several hosts.
    """
    if not options.bert_dir and not options.bert_config_file:
        options = dataclasses.replace(options, bert_dir=_own_model(options.output_dir))
    check(options.missing_files("bert_config_file", "vocab_file") + cluster.conflicts(options))
    return options


def _own_model(output_dir: str) -> Optional[str]:
    """Returns the directory of the model that an earlier run left, if there is one."""
    for directory in (output_dir, os.path.join(output_dir, BEST)):
        if files.exists(os.path.join(directory, "checkpoint")):
            return directory
    return None


def model_dirs(options: Any) -> list[str]:
    """Returns where a model may lie that was trained before, and knows its task."""
    directory = options.output_dir
    return [directory, os.path.join(directory, BEST), options.bert_dir or directory]
