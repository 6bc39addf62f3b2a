"""The sections of a run's report, as HTML: from what bert classify wrote to charts and tables."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_toolkit.pages import page
from bert_toolkit.pages.charts import Axis, Series, chart, shown, table
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import learning_curve, scores
from bert_toolkit.tasks.classification.calibration import Calibration
from bert_toolkit.tasks.classification.predictions import Evaluated

# Labels beyond which the most frequent mistakes are listed in place of a confusion matrix.
LARGEST_MATRIX = 20
# Dots of the chart of numbers that were predicted.
MOST_DOTS = 500
# Training loss is smoothed over this share of the log's lines.
SMOOTHED = 0.05


class Run(NamedTuple):
    """What is there of a run; what is missing is empty or None.

    Attributes:
      name: of its directory.
      problem: what is predicted; None where only runs were compared.
      metric: what decides.
      results: the metrics of each part that was evaluated, by its name: dev, test.
      part: the part that is shown in detail.
      evaluated: its predictions.
      calibration: how outputs become answers.
      training_log: the lines of training, by step.
      evaluation_log: of evaluations meanwhile, by step.
      top_losses: a table, its header first.
      curve: the rows of learning_curve.tsv.
      runs: the table of seeds, its header first.
      notes: what the model was trained with.
      findings: those of bert review-data.
    """

    name: str
    problem: Optional[Problem]
    metric: str
    results: Mapping[str, Mapping[str, Any]]
    part: str
    evaluated: Optional[Evaluated]
    calibration: Calibration
    training_log: Sequence[Mapping[str, Any]]
    evaluation_log: Sequence[Mapping[str, Any]]
    top_losses: Sequence[Sequence[str]]
    curve: Sequence[Mapping[str, Any]]
    runs: Sequence[Sequence[str]]
    notes: Mapping[str, Any]
    findings: Sequence[Mapping[str, Any]]


def fill(run: Run, max_shown: int) -> str:
    """Returns the page.

    Args:
      run: what it shows.
      max_shown: rows of texts that each list has.
    """
    sections = [(title, body) for title, body in _sections(run, max_shown) if body]
    names = [f"section-{number}" for number in range(len(sections))]
    links = [f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in zip(names, sections)]
    parts = [
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        f"{body}</section>"
        for name, (title, body) in zip(names, sections)
    ]
    values = {
        "title": page.text(run.name),
        "summary": page.text(_summary(run)),
        "links": "".join(links),
        "tiles": _tiles(run),
        "sections": "\n".join(parts),
    }
    return page.fill("report.html", values)


def _sections(run: Run, max_shown: int) -> Iterator[tuple[str, str]]:
    """Yields title and content of each section, which is empty where there is nothing."""
    columns = [f"<div>{part}</div>" for part in (_metrics(run), _labels(run)) if part]
    yield "Metrics", f'<div class="charts">{"".join(columns)}</div>' if columns else ""
    yield "Numbers", _numbers(run)
    yield "Calibration", _calibration(run)
    yield "Leaving texts unanswered", _rejection(run)
    yield "Slices", _slices(run)
    yield "Training", _training(run)
    yield "Learning curve", _learning_curve(run)
    yield "Seeds", _table_of("Runs with other seeds", run.runs)
    yield "Top losses", _top_losses(run, max_shown)
    yield "Data", _findings(run, max_shown)
    yield "Settings", _settings(run)


# --- At a glance ---


def _summary(run: Run) -> str:
    if run.problem is None:
        return "Trainings compared."
    facts = [run.problem.kind.replace("_", " ")]
    if run.problem.labels:
        facts.append(f"{len(run.problem.labels):,} labels")
    if run.evaluated is not None:
        facts.append(f"{len(run.evaluated.targets):,} {run.part} texts")
    step = run.results.get(run.part, {}).get("global_step")
    facts += [f"the model of step {step:,}"] if step else []
    return ", ".join(facts)


_TILES = {
    SINGLE: ("accuracy", "f1_macro", "loss", "calibration_error"),
    MULTI: ("f1_micro", "f1_macro", "accuracy", "loss"),
    REGRESSION: ("spearman", "pearson", "mean_absolute_error", "loss"),
}


def _tiles(run: Run) -> str:
    results = run.results.get(run.part)
    if results is None or run.problem is None:
        return ""
    tiles = []
    for name in dict.fromkeys([run.metric, *_TILES[run.problem.kind]]):
        value = results.get(f"eval_{name}")
        if value is None:
            continue
        more = ""
        if name == "accuracy" and run.evaluated is not None:
            low, high = interval(value, len(run.evaluated.targets))
            more = f'<dd class="quiet">{low:.3f} to {high:.3f} (95 %)</dd>'
        tiles.append(f"<div><dt>{_name(name)}</dt><dd>{value:.4f}</dd>{more}</div>")
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def interval(share: float, rows: int) -> tuple[float, float]:
    """Returns the interval of 95 % of a share that was seen in so many rows (Wilson, 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * math.sqrt(share * (1 - share) / rows + (z / rows / 2) ** 2) / (1 + z * z / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def _name(metric: str) -> str:
    return metric.removeprefix("eval_").replace("_", " ")


def _metrics(run: Run) -> str:
    parts = list(run.results)
    names = sorted({n for found in run.results.values() for n in found if n.startswith("eval_")})
    rows = [
        [_name(name), *(_cell(run.results[part].get(name)) for part in parts)] for name in names
    ]
    return table("Metrics", ["metric", *parts], rows) if rows else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


# --- Answers ---


def _labels(run: Run) -> str:
    """Returns the table of labels, and which are taken for which."""
    problem, found = run.problem, run.evaluated
    if problem is None or found is None or problem.kind == REGRESSION:
        return ""
    single = problem.kind == SINGLE
    probabilities = found.probabilities
    predicted = probabilities.argmax(-1) if single else (probabilities >= 0.5).astype(int)
    by_label = scores.by_label(problem, predicted, found.targets)
    rows = [[label, *map(_cell, values.values())] for label, values in by_label.items()]
    header = ["label", "precision", "recall", "F1", "rows"]
    parts = [table("Precision, recall and F1 of each label", header, rows, bars=(1, 2, 3))]
    chosen = run.results.get(run.part, {}).get("calibration", {}).get("labels")
    if chosen:
        rows = [[label, *map(_cell, values.values())] for label, values in chosen.items()]
        parts.append("<p>With the thresholds that --calibrate chose:</p>")
        header = ["label", "threshold", *header[1:]]
        parts.append(table("Labels with their thresholds", header, rows, bars=(2, 3, 4)))
    if single:
        parts.append(_confusion(problem, scores.confusion(problem, probabilities, found.targets)))
    return "".join(parts)


def _confusion(problem: Problem, matrix: np.ndarray) -> str:
    if len(problem.labels) > LARGEST_MATRIX:
        wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
        order = np.argsort(-wrong, axis=None, kind="stable")[:LARGEST_MATRIX]
        pairs = [divmod(int(place), len(matrix)) for place in order if wrong.flat[place]]
        rows = [[problem.labels[a], problem.labels[b], str(matrix[a, b])] for a, b in pairs]
        title = "The most frequent mistakes"
        return f"<p>{title}:</p>" + table(title, ["label", "taken for", "rows"], rows)
    names = "".join(f'<th scope="col">{page.text(label)}</th>' for label in problem.labels)
    lines = []
    for number, label in enumerate(problem.labels):
        total = max(1, matrix[number].sum())
        cells = []
        for other, count in enumerate(matrix[number]):
            share = count / total
            colour = "accent" if other == number else "against"
            style = f"background:rgba(var(--{colour}),{0.45 * share:.2f})"
            kind = ' class="hit"' if other == number else ""
            cells.append(
                f'<td{kind} style="{style}">{count:,}<br>'
                f'<span class="quiet">{100 * share:.0f} %</span></td>'
            )
        lines.append(f'<tr><th scope="row">{page.text(label)}</th>{"".join(cells)}</tr>')
    caption = "Confusion matrix: a row for each true label, a column for each answer"
    return (
        f'<p>{caption}; shares are of the row.</p><div class="scroll" role="region" tabindex="0"'
        f' aria-label="Confusion matrix"><table class="matrix"><caption class="hidden">{caption}'
        f'</caption><thead><tr><td class="quiet">true / answer</td>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _numbers(run: Run) -> str:
    """Returns a chart of numbers that were predicted, where that is the problem."""
    if run.problem is None or run.problem.kind != REGRESSION or run.evaluated is None:
        return ""
    targets, predicted = run.evaluated.targets, run.evaluated.probabilities[:, 0]
    every = math.ceil(len(targets) / MOST_DOTS)
    dots = sorted(zip(map(float, targets[::every]), map(float, predicted[::every])))
    errors = np.abs(predicted - targets)
    quantiles = [[f"{q:.0%}", shown(float(np.quantile(errors, q)))] for q in (0.5, 0.75, 0.9, 0.99)]
    drawn = chart(
        "Numbers predicted, by the true ones",
        Axis("true"),
        Axis("predicted"),
        [Series("a text", dots, "first dots small")],
        diagonal=True,
    )
    header = ["share of texts", "error at most"]
    return f'<div class="charts">{drawn}<div>{table("Errors", header, quantiles)}</div></div>'


def _calibration(run: Run) -> str:
    """Returns the reliability diagram."""
    problem, found = run.problem, run.evaluated
    if problem is None or found is None or problem.kind == REGRESSION:
        return ""
    series, rows = [], []
    for name, look, calibration in (
        ("as trained", "first dots joined", Calibration()),
        (f"temperature {run.calibration.temperature:.3f}", "second dots joined", run.calibration),
    ):
        if name != "as trained" and calibration.temperature == 1.0:
            continue
        probabilities = calibration.probabilities(problem, found.logits(problem))
        sure, right = _sure_and_right(problem, probabilities, found.targets)
        bins = scores.reliability(sure, right)
        series.append(Series(name, [(one.sure, one.right) for one in bins], look))
        error = sum(one.rows * abs(one.sure - one.right) for one in bins) / len(sure)
        rows.append([name, f"{error:.4f}"])
        counts = [[_cell(one.sure), _cell(one.right), f"{one.rows:,}"] for one in bins]
    single = problem.kind == SINGLE
    up = "share that is right" if single else "share of texts that have the label"
    drawn = chart(
        "How often answers are right, by how sure they are",
        Axis("probability", 0.0, 1.0),
        Axis(up, 0.0, 1.0),
        series,
        diagonal=True,
    )
    errors = table("Expected calibration error", ["probabilities", "calibration error"], rows)
    header = ["probability", "share", "texts" if single else "texts and labels"]
    bins_table = table(f"Bins of {series[-1].name}", header, counts)
    return (
        "<p>On the dotted line probabilities are true: of the answers with 0.8, 80 % are right."
        " Below it the model is too sure.</p>"
        f'<div class="charts">{drawn}<div>{errors}<details open><summary>Bins ({series[-1].name})'
        f"</summary>{bins_table}</details></div></div>"
    )


def _sure_and_right(
    problem: Problem, probabilities: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how sure answers are and whether they are right; of several labels, for each."""
    if problem.kind == SINGLE:
        return probabilities.max(-1), probabilities.argmax(-1) == targets
    return probabilities.ravel(), targets.ravel() == 1


def _rejection(run: Run) -> str:
    """Returns how accurate answers are if the least sure are left out."""
    problem, found = run.problem, run.evaluated
    if problem is None or found is None or problem.kind != SINGLE:
        return ""
    probabilities = run.calibration.probabilities(problem, found.logits(problem))
    sure, right = _sure_and_right(problem, probabilities, found.targets)
    order = np.argsort(-sure, kind="stable")
    counts = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(right[order]) / counts
    shares = [share / 100 for share in range(10, 101, 5)]
    places = [max(0, round(share * len(order)) - 1) for share in shares]
    points = [(share, float(accuracy[place])) for share, place in zip(shares, places)]
    rows = [
        [f"{share:.0%}", _cell(float(sure[order][place])), f"{accuracy[place]:.4f}"]
        for share, place in zip(shares, places)
        if round(100 * share) % 10 == 0
    ]
    drawn = chart(
        "Accuracy of what is answered",
        Axis("share answered", 0.0, 1.0),
        Axis("accuracy"),
        [Series("accuracy", points, "first dots joined")],
    )
    below = run.calibration.reject_below
    note = "The texts with the least sure answers are left out."
    if below:
        answered = sure >= below
        note += (
            f" --reject_below has chosen {below:.4f}: {100 * answered.mean():.1f} % are answered, "
            f"{right[answered].mean():.4f} of them right."
            if answered.any()
            else f" --reject_below has chosen {below:.4f}: none is answered."
        )
    header = ["answered", "from probability", "accuracy"]
    listed = table("Accuracy by share answered", header, rows[::-1])
    return f'<p>{note}</p><div class="charts">{drawn}<div>{listed}</div></div>'


def _slices(run: Run) -> str:
    parts = []
    for column, slices in run.results.get(run.part, {}).get("slices", {}).items():
        names = list(next(iter(slices.values())))
        bars = [n for n, name in enumerate(names, 1) if name.startswith(("accuracy", "f1"))]
        rows = []
        for value, metrics in slices.items():
            row = [value, *map(_cell, metrics.values())]
            if "accuracy" in metrics:
                low, high = interval(metrics["accuracy"], metrics["rows"])
                row.append(f"{low:.3f} to {high:.3f}")
            rows.append(row)
        header = [column, *map(_name, names)]
        header += ["accuracy, 95 %"] if "accuracy" in names else []
        parts.append(table(f"Slices by {column}", header, rows, bars))
    return "".join(parts)


# --- Training ---


def _training(run: Run) -> str:
    """Returns charts of loss and metrics by step."""
    parts, series = [], []
    losses = _points(run.training_log, "loss")
    width = round(SMOOTHED * len(losses))
    if losses:
        faint = " faint" if width > 1 else ""
        series.append(Series("training, each line", losses, f"first{faint}"))
    if width > 1:
        numbers = [loss for _, loss in losses]
        means = [np.mean(numbers[max(0, n - width + 1) : n + 1]) for n in range(len(numbers))]
        smoothed = [(step, float(mean)) for (step, _), mean in zip(losses, means)]
        series.append(Series(f"training, mean of {width} lines", smoothed, "first"))
    dev = _points(run.evaluation_log, "eval_loss")
    if dev:
        series.append(Series("dev", dev, "second dots joined dashed"))
    if series:
        parts.append(chart("Loss", Axis("step"), Axis("loss"), series))
    points = _points(run.evaluation_log, f"eval_{run.metric}")
    if points:
        name = _name(run.metric)
        title = f"{name[:1].upper()}{name[1:]} on the dev data"
        one = Series(name, points, "second dots joined dashed")
        parts.append(chart(title, Axis("step"), Axis(name), [one]))
    rates = _points(run.training_log, "learning_rate")
    if rates:
        one = Series("learning rate", rates, "first")
        parts.append(chart("Learning rate", Axis("step"), Axis("learning rate", 0.0), [one]))
    return f'<div class="charts">{"".join(parts)}</div>' if parts else ""


def _points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Returns (step, number) of the lines of a log that have a finite number of that name."""
    found = [(float(line["step"]), float(line[name])) for line in log if name in line]
    return [(step, number) for step, number in found if math.isfinite(number)]


def _learning_curve(run: Run) -> str:
    if not run.curve:
        return ""
    metric = learning_curve.main_metric(run.curve)
    points = learning_curve.points(run.curve, metric)
    if not points:
        return ""
    errors = [one.deviation or 0.0 for one in points]
    of_points = [(float(one.rows), one.mean) for one in points]
    drawn = chart(
        f"{_name(metric).capitalize()} by the rows trained on",
        Axis("rows to train on", is_log=True),
        Axis(_name(metric)),
        [Series("mean, and one deviation", of_points, "first dots joined", errors)],
    )
    rows = [
        [f"{one.rows:,}", str(one.runs), f"{one.mean:.4f}", _cell(one.deviation)] for one in points
    ]
    listed = table("Learning curve", ["rows", "runs", "mean", "deviation"], rows)
    return f'<div class="charts">{drawn}<div>{listed}</div></div>'


# --- Texts ---


def _table_of(caption: str, lines: Sequence[Sequence[str]]) -> str:
    return table(caption, lines[0], lines[1:]) if len(lines) > 1 else ""


def _top_losses(run: Run, max_shown: int) -> str:
    if len(run.top_losses) < 2 or not max_shown:
        return ""
    header, *lines = run.top_losses
    wide = max(map(len, lines))
    header = [*header, *(["second text"] * (wide - len(header)))]
    rows = [[*line, *[""] * (wide - len(line))] for line in lines[:max_shown]]
    if run.problem is not None and run.problem.kind == REGRESSION:
        column = header.index("prediction")
        for row in rows:
            row[column] = shown(float(row[column]))
    note = "<p>The texts that cost the model most; wrong labels are found among them.</p>"
    return note + table("Top losses", header, rows)


def _findings(run: Run, max_shown: int) -> str:
    """Returns what bert review-data found: near-duplicates, conflicts, doubtful labels."""
    parts = []
    for check in dict.fromkeys(one["check"] for one in run.findings):
        found = [one for one in run.findings if one["check"] == check]
        rows = [
            [
                f"{os.path.basename(one['file'])}:{one['line']}",
                one["label"],
                one["alternative"],
                "" if one["score"] is None else f"{one['score']:.3f}",
                _places(one["compared_with"]),
                one["text"],
            ]
            for one in found[:max_shown]
        ]
        header = ["row", "label", "alternative", "score", "as in", "text"]
        parts.append(f"<p>{page.text(_CHECKS.get(check, check))}: {len(found):,} rows</p>")
        parts.append(table(check, header, rows) if rows else "")
    return "".join(parts)


def _places(places: str) -> str:
    """Returns places, "data/train.tsv:12", without their directories."""
    return " ".join(map(os.path.basename, places.split(" ")))


_CHECKS = {
    "labels": "Training labels that a model doubts",
    "conflicts": "Equal texts with different labels",
    "duplicates": "Texts that nearly repeat those of an earlier split",
    "losses": "Wrong answers of the highest loss",
}


def _settings(run: Run) -> str:
    if not run.notes:
        return ""
    data = run.notes.get("data", {}).get("files")
    rows = [["data", str(data)]] if data else []
    for name in ("init_checkpoint", "vocab_file"):
        if run.notes.get(name):
            rows.append([name, str(run.notes[name])])
    for name, value in run.notes.get("flags", {}).items():
        if value is not None:
            rows.append(
                [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
            )
    return table("What the model was trained with", ["setting", "value"], rows)
