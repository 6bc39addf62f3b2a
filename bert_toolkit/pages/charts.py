"""Charts and tables as HTML: inline SVG that follows the page's colours, its numbers beside it."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

from bert_toolkit.pages.page import text

# Of a chart, in units of its own: it is drawn as wide as there is place.
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 46
# Rows of the table of a chart's numbers: of more points, that many are taken.
MOST_NUMBERS = 60


class Series(NamedTuple):
    """What a chart shows.

    Attributes:
      name: for the legend and the table.
      points: (x, y), in the order of x.
      look: class names: first or second colour; "dots", "faint" or "dashed" beside it.
      errors: of each point, how far a line goes up and down from it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    look: str = "first"
    errors: Optional[Sequence[float]] = None


class Axis(NamedTuple):
    """An axis of a chart.

    Attributes:
      label: what is measured.
      low, high: where it begins and ends; where the points do, if not given.
      is_log: whether equal distances are equal ratios.
    """

    label: str
    low: Optional[float] = None
    high: Optional[float] = None
    is_log: bool = False


def chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], diagonal: bool = False, note: str = ""
) -> str:
    """Returns a chart with its legend, and its numbers as a table that can be opened.

    Args:
      title: what it shows, for its caption and for screen readers.
      x: the axis to the right.
      y: the axis upwards.
      series: what is drawn, each with a point at least.
      diagonal: whether to draw where x and y are the same.
      note: HTML below the title.
    """
    scale_x = _scale(x, [px for one in series for px, _ in one.points], LEFT, WIDTH - RIGHT)
    spread = [
        value
        for one in series
        for (_, py), error in zip(one.points, one.errors or [0.0] * len(one.points))
        for value in (py - error, py + error)
    ]
    scale_y = _scale(y, spread, HEIGHT - BOTTOM, TOP)
    drawn = [*_grid(scale_x, scale_y), *_labels(x.label, y.label)]
    if diagonal:
        low, high = max(scale_x.low, scale_y.low), min(scale_x.high, scale_y.high)
        ends = [(low, low), (high, high)]
        drawn.append(f'<path class="diagonal" d="{_path(ends, scale_x, scale_y)}"/>')
    for one in series:
        drawn += _drawn(one, scale_x, scale_y)
    names = ", ".join(one.name for one in series)
    label = text(f"Chart: {title}. {y.label} by {x.label}: {names}. The numbers follow as a table.")
    legend = "".join(f'<li><i class="key {one.look}"></i>{text(one.name)}</li>' for one in series)
    return (
        f"<figure><figcaption>{text(title)}</figcaption>{note}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(drawn)}</svg>"
        f'<ul class="legend">{legend}</ul>{_numbers(title, x, series)}</figure>'
    )


class _Scale(NamedTuple):
    """From numbers to places: [low, high] -> [start, end]."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def place(self, value: float) -> float:
        """Returns where a number is drawn."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Returns round numbers on the axis."""
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if low == high:
        low, high = (low / 2, high * 2) if axis.is_log else (low - 0.5, high + 0.5)
    margin = 0.0 if axis.is_log else 0.04 * (high - low)
    low -= margin if axis.low is None else 0.0
    high += margin if axis.high is None else 0.0
    return _Scale(low, high, start, end, axis.is_log)


def _round_step(least: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _grid(scale_x: _Scale, scale_y: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    found = []
    for tick in scale_y.ticks():
        place = f"{scale_y.place(tick):.1f}"
        found.append(f'<path class="grid" d="M{LEFT} {place}H{right}"/>')
        found.append(f'<text class="up" x="{LEFT - 6}" y="{place}">{shown(tick)}</text>')
    ticks = _powers(scale_x) if scale_x.is_log else scale_x.ticks()
    for tick in ticks:
        place = f"{scale_x.place(tick):.1f}"
        found.append(f'<path class="grid" d="M{place} {TOP}V{bottom}"/>')
        found.append(f'<text class="across" x="{place}" y="{bottom + 16}">{shown(tick)}</text>')
    return found


def _powers(scale: _Scale) -> list[float]:
    """Returns the numbers 1, 2 and 5 times powers of ten on an axis."""
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    numbers = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [number for number in numbers if scale.low <= number <= scale.high]
    return inside if len(inside) > 1 else [n for n in scale.ticks() if n > 0]


def _labels(across: str, up: str) -> list[str]:
    places = [
        f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}"',
        f'transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"',
    ]
    return [
        f'<text class="across" {place}>{text(label)}</text>'
        for place, label in zip(places, (across, up))
    ]


def _path(points: Sequence[tuple[float, float]], scale_x: _Scale, scale_y: _Scale) -> str:
    places = [f"{scale_x.place(px):.1f} {scale_y.place(py):.1f}" for px, py in points]
    return "M" + "L".join(places)


def _drawn(one: Series, scale_x: _Scale, scale_y: _Scale) -> list[str]:
    found = []
    if "dots" not in one.look.split() or "joined" in one.look.split():
        found.append(f'<path class="line {one.look}" d="{_path(one.points, scale_x, scale_y)}"/>')
    if "dots" in one.look.split():
        for px, py in one.points:
            place = f'cx="{scale_x.place(px):.1f}" cy="{scale_y.place(py):.1f}"'
            found.append(f'<circle class="{one.look}" {place} r="3.5"/>')
    for (px, py), error in zip(one.points, one.errors or ()):
        ends = [(px, py - error), (px, py + error)]
        found.append(f'<path class="line {one.look}" d="{_path(ends, scale_x, scale_y)}"/>')
    return found


def _numbers(title: str, x: Axis, series: Sequence[Series]) -> str:
    """Returns the numbers of a chart as a table that can be opened."""
    named = {one.name: dict(one.points) for one in series}
    places = sorted({px for points in named.values() for px in points})
    every = math.ceil(len(places) / MOST_NUMBERS)
    rows = [
        [shown(px), *(shown(points[px]) if px in points else "" for points in named.values())]
        for px in places[::every]
    ]
    part = f", every {every}th point" if every > 1 else ""
    body = table(f"{title}: numbers{part}", [x.label, *named], rows)
    return f"<details><summary>Numbers{part}</summary>{body}</details>"


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], bars: Sequence[int] = ()
) -> str:
    """Returns a table; columns of numbers stand to the right.

    Args:
      caption: for screen readers.
      header: names of the columns.
      rows: of cells, as texts; the first names the row.
      bars: numbers of columns whose numbers, 0 to 1, are bars too.
    """
    columns = list(zip(*rows)) or [()] * len(header)
    numeric = [
        any(cells) and all(re.fullmatch(r"[\d.,%+-]*", cell) for cell in cells) for cells in columns
    ]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    names = "".join(f'<th scope="col"{kind}>{text(n)}</th>' for n, kind in zip(header, kinds))
    lines = []
    for row in rows:
        cells = [f'<th scope="row"{kinds[0]}>{text(row[0])}</th>']
        for number, cell in enumerate(row[1:], 1):
            bar = ""
            if number in bars and cell:
                bar = f'<i class="bar" style="width:{100 * min(1.0, float(cell)):.0f}%"></i>'
            cells.append(f"<td{kinds[number]}>{text(cell)}{bar}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f'<caption class="hidden">{text(caption)}</caption><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def shown(number: float) -> str:
    """Returns a number as people read it: 12,000, 0.8531, 3e-05."""
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{number:,.0f}"
    if abs(number) >= 1000:
        return f"{number:,.1f}"
    return f"{number:.4f}".rstrip("0").rstrip(".") if abs(number) >= 1e-3 else f"{number:.2g}"
