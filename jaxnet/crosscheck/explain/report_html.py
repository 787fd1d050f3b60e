"""Shows a report in a notebook: verdict, sentence, table, curves and maps; everything else unfolds."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from jaxnet.crosscheck.decide import Verdict
from jaxnet.crosscheck.element_errors import ElementErrors
from jaxnet.crosscheck.explain import report_lines
from jaxnet.crosscheck.explain.printed_report import WIDTH
from jaxnet.crosscheck.gradient_line import computed_at
from jaxnet.crosscheck.inspect.errors import counted
from jaxnet.crosscheck.measure.step_sweep import StepErrors
from jaxnet.plots.html import figures, folded, framed, paragraph, table, unbroken
from jaxnet.plots.svg import Axis, Cell, Curve, cell_map, line_chart, opacity

if TYPE_CHECKING:
    from jaxnet.crosscheck.report import Leaf, Report

MARKS = {Verdict.PASS: ("ok", "✓"), Verdict.FAIL: ("bad", "✗"), Verdict.INCONCLUSIVE: ("unsure", "?")}
WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
CURVE_WIDTH = 225  # in pixels: three side by side
ROUNDING = 1e-16  # on every axis of errors, so that a flat curve looks flat
MAX_WHOLE = 4  # reports within a report that can be unfolded
MAX_CURVES = 6  # leaves whose curves are drawn, those that do not pass first
# A leaf may pass along other directions or at another point than those of its curve, which then stays above this.
MAX_FLOOR_OF_PASS = 1e-2


def report_html(report: "Report") -> str:
    """Returns the HTML of a report, with its style."""
    return framed(_whole(report), _text(report))


def verdict_mark(verdict: Verdict) -> str:
    """Returns a verdict as a colored sign and a word."""
    kind, sign = MARKS[verdict]
    return f'<span class="mark {kind}"><i>{sign}</i> {verdict}</span>'


def sentence(report: "Report") -> str:
    """Returns the most helpful sentence about a report: what is wrong or undecided, or how small an error is caught."""
    if report.points:
        counts = Counter(part.verdict for part in report.points)
        parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in WORST_FIRST if counts[verdict])
        return f"{counted(len(report.points), 'input')}: {parts}"
    nested = next((part for part in report.derivatives if not part), None)
    lines = [*report_lines.findings(report), *report_lines.certificate(report)]
    if not lines and nested is not None:
        return f"{nested.subject}: {sentence(nested)}"
    text = ""
    for line in lines:
        text = f"{text} {line.strip()}".strip()
        if not text.endswith(":"):  # a heading of the next line, such as the layer that is wrong
            break
    return text


def _whole(report: "Report") -> str:
    head = f'<div class="head">{verdict_mark(report.verdict)} &nbsp;{escape(report.subject)}</div>'
    return head + _below_head(report)


def _below_head(report: "Report") -> str:
    return "".join([
        paragraph(sentence(report)),
        paragraph(_derivatives(report)),
        _lines(report),
        _leaves(report.leaves),
        _warnings(report),
        _maps(report.leaves),
        _curves(report),
        _parts("input", "inputs", report.points),
        _parts("layer", "layers, each on its own", report.layers),
        *(folded("the gradient's own derivative", _whole(part), is_open=not part) for part in report.derivatives),
    ])  # fmt: skip


def _derivatives(report: "Report") -> str:
    """Returns the derivatives at the worst element of the first leaf that is wrong, unless the sentence has them."""
    failing = [leaf for leaf in report.leaves if leaf.verdict is Verdict.FAIL and leaf.values]
    lines = [line.strip() for leaf in failing[:1] for line in report_lines.findings_of(leaf)]
    return "" if lines[:1] == [sentence(report)] else "".join(lines[:1])


def _lines(report: "Report") -> str:
    """Returns where the wrong gradients are computed, with the code of the first."""
    if report.verdict is not Verdict.FAIL or not report.lines:
        return ""
    code = next(iter(report.lines.values())).code
    return paragraph(f"{computed_at(report.lines)}:") + f"<pre>{escape(code)}</pre>"


def _leaves(leaves: Sequence["Leaf"]) -> str:
    if not leaves:
        return ""
    rows = [
        [
            escape(leaf.name),
            verdict_mark(leaf.verdict),
            _number(leaf.relative_error, ".1e"),
            _number(leaf.relative_tolerance, ".0e"),
            escape(report_lines.brackets(leaf.index)),
        ]
        for leaf in leaves
    ]
    numbers = ("relative error", "explained")
    listed = table(("gradient", "verdict", *numbers, "worst at"), rows, numbers=numbers)
    return listed + "".join(map(paragraph, report_lines.measured_in_double(leaves)))


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _warnings(report: "Report") -> str:
    return "".join(paragraph(f"warning: {warning}") for warning in report.warnings)


def _parts(kind: str, title: str, reports: Sequence["Report"]) -> str:
    """Returns the table of reports within a report, and whole ones that do not pass, of which the first is unfolded."""
    if not reports:
        return ""
    rows = [[escape(part.subject), verdict_mark(part.verdict), unbroken(sentence(part))] for part in reports]
    worst = [part for verdict in WORST_FIRST[:2] for part in reports if part.verdict is verdict]
    wholes = [
        folded(f"{part.verdict}: {part.subject}", _below_head(part), is_open=i == 0 and part.verdict is Verdict.FAIL)
        for i, part in enumerate(worst[:MAX_WHOLE])
    ]
    listed = table((kind, "verdict", "finding"), rows)
    return folded(f"{len(reports)} {title}", listed, *wholes, is_open=not all(reports))


def _text(report: "Report") -> str:
    cost = f"{report.calls:,} forward passes, {report.seconds:.2f} s, seed {report.seed}"
    return folded(f"report as text; {cost}", f"<pre>{escape(report.details(width=WIDTH))}</pre>")


def _curves(report: "Report") -> str:
    """Returns the curves of leaves at the given inputs; none if they cannot be measured again."""
    errors: Mapping[str, StepErrors] = report.step_curves.curves() if report.step_curves is not None else {}
    leaves = sorted((leaf for leaf in report.leaves if leaf.name in errors), key=lambda leaf: bool(_passes(leaf)))
    leaves = [leaf for leaf in leaves if not (_passes(leaf) and errors[leaf.name].floor > MAX_FLOOR_OF_PASS)]
    shown = {leaf.name: errors[leaf.name] for leaf in leaves[:MAX_CURVES]}
    values = [value for each in shown.values() for value in each.error.tolist() if math.isfinite(value) and value > 0]
    if not values:
        return ""
    drawn = [_curve(name, each, Axis.of([ROUNDING, *values], log=True)) for name, each in shown.items()]
    left_out = f", of {MAX_CURVES} of {len(leaves)} gradients" if len(leaves) > MAX_CURVES else ""
    explanation = folded("how to read the curves", paragraph(_explained(list(shown.values()))))
    title = f"error of the difference quotient by step size{left_out}"
    return folded(title, figures(*drawn), explanation, is_open=report.verdict is Verdict.FAIL)


def _explained(curves: Sequence[StepErrors]) -> str:
    """Returns how to read some curves. Those of leaves on which forward depends linearly have no truncation error."""
    curved = "Where the gradient is right, the error falls as the step shrinks, until rounding makes it rise again."
    linear = "Where forward is linear (so marked) and the gradient right, the error only rises, by rounding."
    texts = [curved] * (not all(each.linear for each in curves)) + [linear] * any(each.linear for each in curves)
    floors = (
        "Where it is wrong, the error stays at a floor, which is measured along one more random direction, and so "
        "differs from the relative error above."
    )
    return " ".join([*texts, floors])


def _passes(leaf: "Leaf") -> bool:
    return leaf.verdict is Verdict.PASS


def _curve(name: str, errors: StepErrors, axis: Axis) -> str:
    is_positive = np.isfinite(errors.error) & (errors.error > 0)  # a log axis cannot show zeros
    steps, error = errors.step[is_positive][::-1].tolist(), errors.error[is_positive][::-1].tolist()
    axes = Axis.of(errors.step.tolist(), log=True), axis
    title = f"{name}: floor {errors.floor:.0e}" + (", linear" if errors.linear else "")
    return line_chart(title, "relative step", [Curve("", steps, error)], *axes, width=CURVE_WIDTH)


def _maps(leaves: Sequence["Leaf"]) -> str:
    maps = [
        _map(leaf.name, leaf.element_errors)
        for leaf in leaves
        if leaf.verdict is Verdict.FAIL and leaf.element_errors is not None and leaf.element_errors.wrong.any()
    ]
    return figures(*maps) if maps else ""


def _map(name: str, errors: ElementErrors) -> str:
    """Returns the map of a wrong matrix: wrong elements are filled, the more the larger the error."""
    logs = np.log10(errors.relative[errors.wrong])
    low, high = float(logs.min()), float(logs.max())
    cells = []
    for row, column in np.argwhere(~np.isnan(errors.relative)).tolist():
        error = float(errors.relative[row, column])
        strength = None
        if errors.wrong[row, column]:
            strength = (math.log10(error) - low) / (high - low) if high > low else 1.0
        cells.append(Cell(row, column, strength, f"{name}{_place(errors, row, column)}: {error:.1e}"))
    drawn = cell_map(f"wrong elements of {name}", (errors.relative.shape[0], errors.relative.shape[1]), cells)
    rows, columns = errors.shape
    title = f"<small><b>{escape(name)}</b> {rows} × {columns}</small>"
    return f"{title}{drawn}<small>{_scale(low, high)}{escape(_caption(errors))}</small>"


def _place(errors: ElementErrors, row: int, column: int) -> str:
    """Returns the index of a cell's element, or the slices of its block."""
    parts = []
    for i, size, end in zip((row, column), errors.block, errors.shape, strict=True):
        parts.append(f"{i}" if size == 1 else f"{i * size}:{min((i + 1) * size, end)}")
    return f"[{', '.join(parts)}]"


def _scale(low: float, high: float) -> str:
    """Returns the legend of the filled cells: the smallest and the largest error."""
    ends = [(0.0, low), (1.0, high)] if high > low else [(1.0, high)]
    swatches = [
        f'<svg width="11" height="11" viewBox="0 0 11 11" aria-hidden="true" style="display:inline-block">'
        f'<rect x="1" y="1" width="9" height="9" fill="var(--bad)" fill-opacity="{opacity(strength):.2f}" '
        f'stroke="currentColor"/></svg> {10**log:.0e}'
        for strength, log in ends
    ]
    return f"wrong by {' to '.join(swatches)} of the gradient's norm. "


def _caption(errors: ElementErrors) -> str:
    size = math.prod(errors.shape)
    parts = []
    if not errors.wrong[~np.isnan(errors.relative)].all():
        parts.append("Outlined: no error.")
    if np.isnan(errors.relative).any():
        parts.append("Blank: not compared alone.")
    if errors.compared < size:
        parts.append(f"{errors.compared:,} of {size:,} elements were compared alone.")
    if math.prod(errors.block) > 1:
        rows, columns = errors.block
        parts.append(f"A cell is the largest error of {rows} × {columns} elements.")
    return " ".join(parts)
