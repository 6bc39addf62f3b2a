"""Learning curve: the same training on more and more of the data."""

import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.options import check
from bert_toolkit.tasks.classification import task_data
from bert_toolkit.training import cluster

TABLE = "learning_curve.tsv"
ALL = "all"


class Point(NamedTuple):
    """A metric of the models that were trained on so many rows.

    Attributes:
      rows: that were trained on.
      runs: how many models there are.
      mean: of the metric.
      deviation: between runs; None of one.
    """

    rows: int
    runs: int
    mean: float
    deviation: Optional[float]


def conflicts(options: Any) -> list[str]:
    """Returns a sentence for everything about --learning_curve that does not go together."""
    sizes = options.learning_curve
    if not sizes:
        return []
    found = [
        f"--learning_curve={','.join(sizes)}: {size!r}: expected numbers of rows, and all:"
        " 500,1000,2000,all"
        for size in sizes
        if size != ALL and not (size.isdecimal() and int(size))
    ]
    if options.max_train_examples:
        found.append("--learning_curve and --max_train_examples: both choose rows; pass one")
    trains, evaluates, _ = options.actions()
    if not (trains and evaluates):
        found.append("--learning_curve trains and evaluates: pass --do_train and --do_eval")
    if options.do_predict or options.predict_file:
        found.append("--learning_curve predicts nothing: leave out --do_predict and --predict_file")
    return found


def run(options: Any, run_once: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Trains and evaluates for each size and seed; returns the metrics of the last.

    The models lie in rows_500/ and so on below --output_dir, with several seeds in run_1/, ...
    below those; the metrics of all are in learning_curve.tsv. What was trained before is only
    evaluated again.

    Args:
      options: of bert classify.
      run_once: trains and evaluates one model.

    Raises:
      UserError: there are less rows, or an input cannot be used.
    """
    check(cluster.conflicts(options))
    wanted = task_data.Wanted(True, False, False)
    data = task_data.load(options.task(), options, wanted, options.seed, [])
    main = f"eval_{options.best_metric or data.metric}"
    table: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for rows, one in _runs(options, _sizes(options, len(data.train or ()))):
        logging.info("%s rows, seed %d", f"{rows:,}", one.seed)
        metrics = run_once(one)
        measured = {name: metrics[name] for name in metrics if name.startswith("eval_")}
        # The metric that decides is the first.
        row = {"rows": rows, "seed": one.seed, main: metrics.get(main, ""), **measured}
        table.append(row)
        _write(os.path.join(options.output_dir, TABLE), table)
    logging.info("%s", main.removeprefix("eval_"))
    for line in shown(points(table, main)):
        logging.info("%s", line)
    return metrics


def _sizes(options: Any, total: int) -> list[tuple[str, int]]:
    """Returns the sizes as they are given, and how many of all rows they are."""
    sizes = [(size, total if size == ALL else int(size)) for size in options.learning_curve]
    too_large = [size for size, rows in sizes if rows > total]
    if too_large:
        raise UserError(
            f"--learning_curve={','.join(options.learning_curve)}: {too_large[0]} rows, but there"
            f" are {total:,} to train on; pass smaller numbers, or all"
        )
    return sizes


def _runs(options: Any, sizes: Sequence[tuple[str, int]]) -> Iterator[tuple[int, Any]]:
    """Yields the number of rows and the options of each training."""
    divides = options.eval_split or options.test_split
    split_seed = options.seed if divides and options.split_seed is None else options.split_seed
    for name, rows in sizes:
        for number in range(options.num_runs):
            directory = os.path.join(options.output_dir, f"rows_{name}")
            if options.num_runs > 1:
                directory = os.path.join(directory, f"run_{number + 1}")
            yield (
                rows,
                dataclasses.replace(
                    options,
                    learning_curve=None,
                    max_train_examples=None if name == ALL else rows,
                    seed=options.seed + number,
                    split_seed=split_seed,
                    num_runs=1,
                    output_dir=directory,
                    do_train=True,
                    do_eval=True,
                ),
            )


def _write(path: str, table: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    rows = [names, *([str(row.get(name, "")) for name in names] for row in table)]
    files.write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def read(directory: str) -> list[dict[str, Any]]:
    """Returns the rows of an output directory's table; none if it has no table.

    Raises:
      UserError: it is damaged.
    """
    path = os.path.join(directory, TABLE)
    if not files.exists(path):
        return []
    header, *lines = [line.split("\t") for line in files.read_text(path).split("\n")]
    try:
        rows = [dict(zip(header, line)) for line in lines if line != [""]]
        found = [{name: float(cell) for name, cell in row.items() if cell} for row in rows]
        points(found, main_metric(found))
        return found
    except (ValueError, OverflowError, KeyError, IndexError, StopIteration) as error:
        raise UserError(
            f"{path}: {error or 'no metric'}; expected the table that --learning_curve made"
        ) from None


def main_metric(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns the metric that decides, "eval_...": the first of a table."""
    return next(name for name in table[0] if name.startswith("eval_"))


def points(table: Sequence[Mapping[str, Any]], metric: str) -> list[Point]:
    """Returns the mean of a metric, "eval_...", for each number of rows, the smallest first.

    What is not a number, of a run that diverged, does not count.
    """
    found = []
    for rows in sorted({int(row["rows"]) for row in table}):
        of_rows = [row.get(metric, "") for row in table if row["rows"] == rows]
        values = [float(value) for value in of_rows if value != "" and math.isfinite(value)]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found.append(Point(rows, len(values), statistics.mean(values), deviation))
    return found


def shown(found: Sequence[Point]) -> list[str]:
    """Returns the lines of a table of points."""
    rows = [
        [f"{one.rows:,}", str(one.runs), f"{one.mean:.4f}", _cell(one.deviation)] for one in found
    ]
    return metrics_files.aligned([["rows", "runs", "mean", "deviation"], *rows])


def _cell(number: Optional[float]) -> str:
    return "" if number is None else f"{number:.4f}"
