"""Draws line charts and maps of cells as inline SVG, in the colors of the page around it.

matplotlib would need a second for its import, and its SVG has fixed colors, ids, and fonts drawn as outlines.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 300, 170  # of a chart, in pixels: one fits a phone, two a notebook's cell
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 20, 32  # the margins, for ticks, the title, and the x label
NAME = 32  # more at the right, for names of curves
MAX_TICKS = 5
MAP_WIDTH = 256  # of a map, before its cells are limited to these sizes
MIN_CELL, MAX_CELL = 8, 20
WEAKEST = 0.3  # the opacity of the weakest cell, which must still differ from the page in grey


class Curve(NamedTuple):
    """A curve of a chart.

    Attributes:
        name: Written where it ends; "" for none.
        x: The finite abscissas, from left to right.
        y: The ordinates; those that are not finite, or not positive on a log axis, are left out.
        dashed: Whether the line is dashed.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


class Axis(NamedTuple):
    """A scale of a chart, from values to [0, 1].

    Attributes:
        low: The value at 0.
        high: The value at 1, which is larger.
        log: Whether both are decimal logarithms.
        percent: Whether ticks are written in percent.
    """

    low: float
    high: float
    log: bool = False
    percent: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, log: bool = False, percent: bool = False) -> "Axis":
        """Returns the axis on which finite values fit; on a log axis, positive ones."""
        values = [math.log10(value) if log else value for value in values] or [0.0]
        low, high = min(values), max(values)
        margin = 0.04 * (high - low) or 0.5
        return cls(low - margin, high + margin, log, percent)

    def at(self, value: float) -> float:
        """Returns where a value is."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns round values on the axis, and how they are written."""
        step = _round_step((self.high - self.low) / MAX_TICKS)
        if self.log:
            step = max(1, math.ceil(step))
        multiples = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        if self.log and len(multiples) < 2:  # less than a decade: the ends
            ends = [10 ** (self.low + share * (self.high - self.low)) for share in (0.1, 0.9)]
            return [(float(text), text) for text in (f"{end:.2g}" for end in ends)]
        values = [10.0 ** (i * step) if self.log else i * step for i in multiples]
        return [(value, f"{100 * value:.3g}%" if self.percent else f"{value:.6g}") for value in values]


def line_chart(
    title: str, x_label: str, curves: Sequence[Curve], x_axis: Axis, y_axis: Axis, *, width: int = WIDTH
) -> str:
    """Returns a chart of curves, each named where it ends.

    Args:
        title: Written above.
        x_label: Written below the horizontal axis.
        curves: The curves.
        x_axis: The horizontal axis.
        y_axis: The vertical axis.
        width: Its width in pixels.
    """
    right, bottom = width - RIGHT - (NAME if any(curve.name for curve in curves) else 0), HEIGHT - BOTTOM

    def x_at(value: float) -> float:
        return LEFT + x_axis.at(value) * (right - LEFT)

    def y_at(value: float) -> float:
        return bottom - y_axis.at(value) * (bottom - TOP)

    parts = [_text(LEFT, 12, title, weight="600")]
    for value, label in y_axis.ticks():
        parts.append(_line(LEFT, y_at(value), right, y_at(value), opacity=0.2))
        parts.append(_text(LEFT - 5, y_at(value) + 4, label, anchor="end"))
    for value, label in x_axis.ticks():
        parts.append(_line(x_at(value), bottom, x_at(value), bottom + 4))
        parts.append(_text(x_at(value), bottom + 15, label, anchor="middle"))
    parts += [_line(LEFT, bottom, right, bottom), _text((LEFT + right) / 2, HEIGHT - 3, x_label, anchor="middle")]
    ends: list[float] = []
    for curve in curves:
        points = [
            (x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y) and not (y_axis.log and y <= 0)
        ]
        if not points:
            continue
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        dashes = ' stroke-dasharray="5 3"' if curve.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"{dashes}/>')
        if len(points) == 1:
            parts.append(
                f'<circle cx="{x_at(points[0][0]):.1f}" cy="{y_at(points[0][1]):.1f}" r="2.5" fill="currentColor"/>'
            )
        if curve.name:
            ends.append(_apart(y_at(points[-1][1]) + 4, ends))
            parts.append(_text(right + 4, ends[-1], curve.name))
    return _svg(width, HEIGHT, f"{title}, by {x_label}", parts)


class Cell(NamedTuple):
    """A cell of a map.

    Attributes:
        row: Its row.
        column: Its column.
        strength: How strongly it is filled, from 0 to 1; None if it is only outlined.
        title: What is shown under the pointer.
    """

    row: int
    column: int
    strength: float | None
    title: str


def cell_map(label: str, shape: tuple[int, int], cells: Iterable[Cell]) -> str:
    """Returns a map of filled and outlined cells; places without a cell stay blank.

    Args:
        label: What it shows, for those who cannot see it.
        shape: The numbers of rows and columns.
        cells: The cells.
    """
    rows, columns = shape
    size = max(MIN_CELL, min(MAX_CELL, MAP_WIDTH // max(columns, 1)))
    parts = [
        f'<rect width="{columns * size + 2}" height="{rows * size + 2}" fill="none" stroke="currentColor" '
        'stroke-opacity="0.5"/>'
    ]
    for row, column, strength, title in cells:
        is_filled = strength is not None
        fill = (
            f'class="filled" fill="var(--bad)" fill-opacity="{opacity(strength):.2f}"'
            if strength is not None
            else ('fill="none"')
        )
        parts.append(
            f'<rect x="{column * size + 2}" y="{row * size + 2}" width="{size - 2}" height="{size - 2}" {fill} '
            f'stroke="currentColor" stroke-opacity="{0.9 if is_filled else 0.35}" pointer-events="all">'
            f"<title>{escape(title)}</title></rect>"
        )
    return _svg(columns * size + 2, rows * size + 2, label, parts)


def opacity(strength: float) -> float:
    """Returns the opacity of a cell that is filled this strongly."""
    return WEAKEST + (1 - WEAKEST) * strength


def _round_step(step: float) -> float:
    """Returns the least of 1, 2, 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _apart(y: float, others: Sequence[float], distance: float = 12) -> float:
    """Returns y, moved up or down if the text there would cover another."""
    for other in others:
        if abs(y - other) < distance:
            return other + distance if y >= other else other - distance
    return y


def _line(x1: float, y1: float, x2: float, y2: float, *, opacity: float = 0.7) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    )
