"""The same training with several seeds: a table, the mean, and the best model."""

import dataclasses
import json
import os
import statistics
from collections.abc import Callable
from typing import Any

from absl import logging

from bert_toolkit.checkpoints.task_file import NAME as TASK_FILE
from bert_toolkit.io import files
from bert_toolkit.tasks import best_model

TABLE = "runs.tsv"


def run(options: Any, run_once: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Trains and evaluates --num_runs times, keeps the best, and predicts with it.

    Returns the metrics of the best run. `options` are FinetuneOptions with an output_dir.
    """
    trains, _, predicts = options.actions()
    found: list[dict[str, Any]] = []
    if trains:
        for number in range(options.num_runs):
            logging.info("run %d of %d", number + 1, options.num_runs)
            found.append(run_once(_one_of(options, number)))
        best = _compare(options, found)
        best_model.keep(_checkpoint(options, best), options.output_dir)
    if predicts:
        once = {"do_train": False, "do_eval": False, "do_predict": True, "num_runs": 1}
        run_once(dataclasses.replace(options, **once, checkpoint="best"))
    return found[best] if trains else {}


def _directory(options: Any, number: int) -> str:
    return os.path.join(options.output_dir, f"run_{number + 1}")


def _one_of(options: Any, number: int) -> Any:
    # Only results on the same data can be compared.
    divided = {}
    if hasattr(options, "split_seed") and options.split_seed is None:
        divided = {"split_seed": options.seed}
    return dataclasses.replace(
        options,
        **divided,
        seed=options.seed + number,
        output_dir=_directory(options, number),
        num_runs=1,
        do_train=True,
        do_eval=True,
        do_predict=False,
    )


def _checkpoint(options: Any, number: int) -> str:
    return best_model.find(_directory(options, number), options.checkpoint, None)


def _compare(options: Any, found: list[dict[str, Any]]) -> int:
    """Writes the table; returns the number of the best run."""
    stored = json.loads(files.read_text(os.path.join(_directory(options, 0), TASK_FILE)))
    metric = options.best_metric or stored["metric"]
    best = 0
    for number, metrics in enumerate(found):
        if best_model.is_better(metric, metrics[f"eval_{metric}"], found[best][f"eval_{metric}"]):
            best = number
    names = [name for name in found[0] if name.startswith("eval_")]
    rows = [["run", "seed", *names]]
    for number, metrics in enumerate(found):
        values = [f"{metrics.get(name, float('nan')):.6f}" for name in names]
        rows.append([f"run_{number + 1}", str(options.seed + number), *values])
    for what, function in (("mean", statistics.mean), ("deviation", statistics.stdev)):
        values = [
            function([metrics.get(name, float("nan")) for metrics in found]) for name in names
        ]
        rows.append([what, "", *(f"{value:.6f}" for value in values)])
    path = os.path.join(options.output_dir, TABLE)
    files.write_text(path, "".join("\t".join(row) + "\n" for row in rows))
    column = rows[0].index(f"eval_{metric}")
    logging.info(
        "%s of %d runs: mean %s, deviation %s; the best is run_%d; %s has all",
        metric,
        len(found),
        rows[-2][column],
        rows[-1][column],
        best + 1,
        path,
    )
    return best
