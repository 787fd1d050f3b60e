"""Pictures of what decides how training goes: optimizer, initial values, normalization, what keeps from overfitting.

Chapter 6 of the book has their like. Each function returns a Figure and shows nothing; each reads in grey and at 400
pixels across.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxnet.plots.training import DPI, STYLES, WIDTH
from jaxnet.train.step import History
from jaxnet.train.sweep import Sweep

LINES = [  # told apart by lightness and by dashes
    ("black", "-"),
    ("#003f7f", (0, (6, 2))),
    ("#c46a00", "-"),
    ("#7a4d9c", (0, (1.5, 1.2))),
    ("#5c9bd1", (0, (5, 1.5, 1.5, 1.5))),
    ("#9a9a9a", "-"),
]
SMOOTHED = 40  # points on a line of losses


def optimizer_paths(f: Callable[[Any, Any], Any], paths: Mapping[str, Float[np.ndarray, "S 2"]]) -> Figure:
    """Where each optimizer walks on the surface f(x, y), whose contours lie below, and where it ends.

    Args:
        f: Of arrays of one shape; its minimum, at (0, 0), is marked with a cross.
        paths: By the optimizer's name, the points that it visits, the first where it starts.

    Raises:
        ValueError: There is no path, or a point is not finite.
    """
    paths = {name: np.asarray(path) for name, path in _some("paths", paths).items()}
    for name, path in paths.items():
        if path.ndim != 2 or path.shape[1] != 2 or not np.isfinite(path).all():
            raise ValueError(f"paths[{name!r}]: shape {path.shape}, expected finite points (S, 2)")
    figure, cells = _panels(len(paths), 2, 1.45)
    reach = 1.12 * np.abs(np.concatenate(list(paths.values()))).max(axis=0) + 1e-12
    x, y = np.meshgrid(np.linspace(-reach[0], reach[0], 200), np.linspace(-reach[1], reach[1], 200))
    height = f(x, y)
    levels = np.linspace(height.min(), height.max(), 13)[1:]
    for cell, (name, path) in zip(cells, paths.items(), strict=True):
        cell.contour(x, y, height, levels=levels, colors="0.75", linewidths=0.6)
        cell.plot(*path.T, color="black", marker="o", markersize=2.5, linewidth=1)
        cell.plot(0, 0, color="#c46a00", marker="+", markersize=11, markeredgewidth=2)
        _say(cell, f"{name}: f = {f(*path[-1]):.2g}")
        cell.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        cell.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    steps = len(next(iter(paths.values()))) - 1
    return _titled(figure, f"{steps} steps down an elongated bowl, and how high they end")


def losses(title: str, curves: Mapping[str, Any]) -> Figure:
    """The loss of each run, as medians of blocks of steps, on a log axis: the names stand where the lines end.

    Args:
        title: What was trained.
        curves: By name, the loss of every step (S,), in nats.

    Raises:
        ValueError: There is no curve, or one has no positive number.
    """
    figure, (axes,) = _panels(1, 1, 3.6)
    ends = {}
    for i, (name, loss) in enumerate(_some("curves", curves).items()):
        if not np.size(loss) or not np.nanmax(loss) > 0:
            raise ValueError(f"curves[{name!r}]: expected losses, one of them positive at least")
        block = max(1, len(loss) // SMOOTHED)
        starts = range(0, len(loss), block)
        smooth = [np.median(loss[i : i + block]) for i in starts]
        color, dashes = LINES[i % len(LINES)]
        axes.plot([s + block / 2 for s in starts], smooth, color=color, linestyle=dashes, linewidth=1.8)
        ends[name] = smooth[-1], color
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("step")
    _say(axes, f"loss in nats: medians of {block} batches" if block > 1 else "loss in nats: each batch")
    _name_ends(axes, ends)
    return _titled(figure, title)


def activations(title: str, rows: Mapping[str, Sequence[Float[np.ndarray, "..."]]]) -> Figure:
    """How the activations of each layer are distributed: a row for each choice of initial values, a column a layer.

    All cells of a row share their axes. Above each is the standard deviation: where it falls to 0 from layer to layer,
    so does the gradient.

    Args:
        title: What the layers are.
        rows: By the name of the choice, an array of activations for each layer, the same number of layers in each.

    Raises:
        ValueError: There is no row, or the rows have different numbers of layers.
    """
    counts = {len(layers) for layers in _some("rows", rows).values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"rows: {sorted(counts)} layers, expected as many in each row, and at least 1")
    (columns,) = counts
    figure = Figure(figsize=(WIDTH, 0.75 + 1.25 * len(rows)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(rows), columns, sharex="row", sharey="row", squeeze=False)
    for i, cell in enumerate(grid[0], start=1):
        cell.set_title(f"layer {i}", fontsize="medium")
    for cells, (name, layers) in zip(grid, rows.items(), strict=True):
        values = np.concatenate([np.ravel(a) for a in layers])
        low, high = np.quantile(values, [0.002, 0.998])
        bins = np.linspace(low, high, 31) if high > low else np.linspace(low - 0.5, low + 0.5, 31)
        shares = [np.histogram(a, bins)[0] / np.size(a) for a in layers]
        for cell, a, share in zip(cells, layers, shares, strict=True):
            cell.stairs(share, bins, fill=True, color="0.25")
            cell.set_yticks([])
            cell.xaxis.set_major_locator(MaxNLocator(2))
            cell.tick_params(labelsize="small")
            cell.spines[["top", "right", "left"]].set_visible(False)
            spread = f"σ {np.std(a):,.0f}" if np.std(a) >= 100 else f"σ {np.std(a):.2g}"
            cell.text(0.97, 0.97, spread, transform=cell.transAxes, ha="right", va="top", fontsize=8)
        # A peak, such as ReLU's at 0, may leave at the top: it would flatten all that lies beside it.
        tallest, second = np.max([np.sort(share)[[-1, -2]] for share in shares], axis=0)
        cells[0].set_ylim(0, 1.35 * min(tallest, 3 * second or tallest))  # room for the numbers
        cells[0].set_ylabel(name, fontsize="medium")
    return _titled(figure, title)


def scales(curves: Mapping[float, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Training accuracy over the steps, a panel for each standard deviation of the initial weights.

    Args:
        curves: By standard deviation, then by the name of the network, the same two names in each: steps (E,), and
            accuracies (E,) in [0, 1]. The second of the two is drawn bold.

    Raises:
        ValueError: There is no curve, or not two in each.
    """
    names = list(next(iter(_some("curves", curves).values())))
    end = max(step[-1] for pair in curves.values() for step, _ in pair.values())
    for scale, pair in curves.items():
        if list(pair) != names or len(names) != 2:
            raise ValueError(f"curves[{scale!r}]: {', '.join(pair)}, expected the same two names in each")
    figure, cells = _panels(len(curves), 4, 1.25, shared=True)
    for cell, (scale, pair) in zip(cells, curves.items(), strict=True):
        for (step, accuracy), (color, dashes), width in zip(
            pair.values(), [("#c46a00", (0, (3, 1.2))), ("#003f7f", "-")], (1.4, 1.8), strict=True
        ):
            cell.plot(step, accuracy, color=color, linestyle=dashes, linewidth=width)
        for name, (step, _) in pair.items():
            if step[-1] < end:
                cell.text(0.97, 0.08, f"{name}:\ndiverged", transform=cell.transAxes, ha="right", fontsize=8)
        _say(cell, f"σ = {scale:.2g}")
        cell.set_ylim(0, 1.03)
        cell.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
        cell.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    return _titled(figure, f"Training accuracy by initial scale σ: {names[1]} solid, {names[0]} dashed")


def overfitting(title: str, histories: Mapping[str, History]) -> Figure:
    """Accuracies on train and test over the steps, a panel for each way of training, and what is left between them.

    Raises:
        ValueError: There is no history, or one without evaluations.
    """
    figure, cells = _panels(len(_some("histories", histories)), 2, 1.9, shared=True)
    low = 1.0
    for cell, (name, history) in zip(cells, histories.items(), strict=True):
        accuracies = history.train_accuracy, history.test_accuracy
        if not len(history.eval_step):
            raise ValueError(f"histories[{name!r}]: no evaluation, expected one at least")
        for (_, color, dashes), accuracy in zip(STYLES, accuracies, strict=True):
            cell.plot(history.eval_step, accuracy, color=color, linestyle=dashes, linewidth=1.6)
        low = min(low, *(float(np.min(a[len(a) // 8 :])) for a in accuracies))
        train, test = (float(a[-1]) for a in accuracies)
        _say(cell, name)
        cell.text(0.98, 0.06, f"train {train:.1%}\ntest {test:.1%}", transform=cell.transAxes, ha="right", va="bottom")
        cell.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        cell.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    cells[0].set_ylim(max(0, low - 0.1), 1.01)
    return _titled(figure, f"{title}: train dashed, test solid")


def sweep_map(title: str, sweep: Sweep, marked: Mapping[str, tuple[float, float]] = MappingProxyType({})) -> Figure:
    """Final test accuracy over learning rate and initial scale, in percent: light is good, crossed out has diverged.

    Of several seeds the median; a combination of which one seed diverged is crossed out.

    Args:
        title: What was trained.
        sweep: As from `jaxnet.sweep`.
        marked: By name, combinations (learning rate, scale) to be framed; those that were not swept are passed over.
    """
    accuracy = 100 * np.median(np.nan_to_num(sweep.test_accuracy), axis=2).T  # (C, L)
    diverged = np.any(sweep.diverged, axis=2).T
    rows, columns = accuracy.shape
    figure = Figure(figsize=(WIDTH, 1.4 + 0.42 * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.where(diverged, np.nan, accuracy), cmap="gray", vmin=0, vmax=110, aspect="auto", origin="lower")
    for i, j in np.ndindex(rows, columns):
        if diverged[i, j]:
            axes.text(j, i, "×", ha="center", va="center", color="#c46a00", fontsize="x-large", fontweight="bold")
        else:
            color = "black" if accuracy[i, j] > 50 else "white"
            axes.text(j, i, f"{accuracy[i, j]:.0f}", ha="center", va="center", color=color)
    for n, (name, (rate, scale)) in enumerate(marked.items()):
        at = [np.flatnonzero(np.isclose(a, b)) for a, b in ((sweep.learning_rate, rate), (sweep.scale, scale))]
        if all(len(found) for found in at):
            j, i = (int(found[0]) for found in at)
            dashes = "--" if n % 2 else "-"
            corner, side = (j - 0.46, i - 0.46), 0.92
            axes.add_patch(
                Rectangle(
                    corner, side, side, label=name, edgecolor="#c46a00", linewidth=2.5, linestyle=dashes, fill=False
                )
            )
    axes.set_xticks(range(columns), [f"{rate:.2g}" for rate in sweep.learning_rate])
    axes.set_yticks(range(rows), [f"{scale:.2g}" for scale in sweep.scale])
    axes.set_xlabel("learning rate" + ("; × diverged" if diverged.any() else ""))
    _say(axes, "by initial standard deviation: test accuracy in percent")
    if axes.patches:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _titled(figure, title)


def _some(name: str, things: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if not things:
        raise ValueError(f"{name}: none, expected at least one")
    return things


def _panels(count: int, columns: int, height: float, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels, row by row, each `height` inches high, below one line of title."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, 0.45 + height * rows + 0.3), dpi=DPI, layout="constrained")
    grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
    for cell in grid[count:]:
        cell.set_axis_off()
    for cell in grid[:count]:
        cell.spines[["top", "right"]].set_visible(False)
        cell.grid(color="0.92", linewidth=0.5)
    return figure, grid[:count]


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _say(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize="medium")


def _name_ends(axes: Axes, ends: Mapping[str, tuple[float, str]], apart: float = 0.075) -> None:
    """Names at the right, in the order of the lines' ends and at least so far apart, of the axes' height."""
    low, high = np.log(axes.get_ylim())
    place = -math.inf
    for name, (value, color) in sorted(ends.items(), key=lambda end: end[1][0]):
        place = max(place + apart, (math.log(value) - low) / (high - low)) if value > 0 else max(place + apart, 0)
        axes.annotate(name, (1.01, place), xycoords="axes fraction", color=color, va="center", fontweight="bold")
