"""Figures that compare runs: optimizers, initial values, normalization, overfitting, as in chapter 6 of the book.

Each function returns a Figure, legible in grey and at a width of 400 pixels, and shows nothing.
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
from matplotlib.ticker import MaxNLocator

from jaxnet.plots.style import (
    ACCURACY_STYLES,
    ORANGE,
    evaluated_history,
    history_of,
    line_style,
    new_figure,
    panels,
    running_median,
    set_accuracy_axis,
    set_loss_axis,
    set_step_axis,
    set_title,
)  # fmt: skip
from jaxnet.train.history import History, Progress
from jaxnet.train.sweep import Sweep

MAX_RUNS = 12  # of a sweep, as lines
SMALLEST_SHARE = 1e-3  # in a histogram of activations


def optimizer_paths(f: Callable[[Any, Any], Any], paths: Mapping[str, Float[np.ndarray, "S 2"]]) -> Figure:
    """Draws the path of each optimizer over the contours of f(x, y), and the height where it ends.

    Args:
        f: Function of two arrays of one shape, with its minimum at (0, 0), which is marked with a cross.
        paths: The points of each path (S, 2), by the optimizer's name.

    Raises:
        ValueError: If there is no path, or a point is not finite.
    """
    _check_not_empty("paths", paths)
    paths = {name: np.asarray(path) for name, path in paths.items()}
    for name, path in paths.items():
        if path.ndim != 2 or path.shape[1] != 2 or not np.isfinite(path).all():
            raise ValueError(f"paths[{name!r}]: shape {path.shape}, expected finite points (S, 2)")
    steps = len(next(iter(paths.values()))) - 1
    title = f"{steps} steps in an elongated bowl, and the height at the end"
    figure, cells = panels(title, len(paths), 2, 1.45, "x", "y")
    limits = 1.12 * np.abs(np.concatenate(list(paths.values()))).max(axis=0) + 1e-12
    x, y = np.meshgrid(*(np.linspace(-limit, limit, 200) for limit in limits))
    height = f(x, y)
    levels = np.linspace(height.min(), height.max(), 13)[1:]
    for cell, (name, path) in zip(cells, paths.items(), strict=True):
        cell.contour(x, y, height, levels=levels, colors="0.75", linewidths=0.6)
        cell.plot(*path.T, color="black", marker="o", markersize=2.5, linewidth=1)
        cell.plot(0, 0, color=ORANGE, marker="+", markersize=11, markeredgewidth=2)
        set_title(cell, f"{name}: f = {f(*path[-1]):.2g}")
        cell.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        cell.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def losses(title: str, curves: Mapping[str, Float[np.ndarray, " S"] | History | Progress] | Sweep) -> Figure:
    """Draws the loss of each run on a log axis, as a running median, with its name where the line ends.

    Args:
        title: What was trained.
        curves: What `fit` returns, or its history, or the loss of every step in nats, by name; or what `sweep` returns.

    Raises:
        ValueError: If there is no curve, one has no positive number, or a sweep has more than 12 runs.
    """
    if isinstance(curves, Sweep):
        curves = _curves_of_sweep(curves)
    _check_not_empty("curves", curves)
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    arrays = {
        name: np.asarray(history_of(run).loss if isinstance(run, History | Progress) else run)
        for name, run in curves.items()
    }
    for name, loss in arrays.items():
        if not np.nanmax(loss, initial=0) > 0:
            raise ValueError(f"curves[{name!r}]: expected losses with at least one positive number")
    _draw_losses(axes, arrays)
    set_step_axis(axes, max(map(len, arrays.values())))
    _name_ends(axes)
    return figure


def run_curves(histories: Mapping[str, History | Progress]) -> Figure:
    """Draws the loss of each run, and below it the accuracy on held-out data, with the names of the runs below.

    Args:
        histories: What `fit` returns, or its history, by the name of the run.

    Raises:
        ValueError: If there is no run, or one whose accuracies are missing or not in [0, 1].
    """
    _check_not_empty("histories", histories)
    evaluated = {name: evaluated_history(f"histories[{name!r}]", run) for name, run in histories.items()}
    figure = new_figure(5.5, f"Loss and held-out accuracy of {len(evaluated)} runs")
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    _draw_losses(loss_axes, {name: np.asarray(history.loss) for name, history in evaluated.items()})
    set_accuracy_axis(accuracy_axes)
    for i, history in enumerate(evaluated.values()):
        accuracy_axes.plot(history.eval_step, history.test_accuracy, **line_style(i))
    accuracy_axes.set_ylabel("held-out accuracy")
    set_step_axis(accuracy_axes, max(1, *(len(history.loss) for history in evaluated.values())))
    figure.legend(handles=list(loss_axes.lines), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_losses(axes: Axes, curves: Mapping[str, np.ndarray]) -> None:
    """Draws a smoothed line for each loss, and says how it is smoothed."""
    set_loss_axis(axes, np.concatenate(list(curves.values())))
    windows = []
    for i, (name, loss) in enumerate(curves.items()):
        steps, medians, window = running_median(loss)
        axes.plot(steps, medians, label=name, **line_style(i))
        windows.append(window)
    set_title(axes, f"running median of {max(windows)} steps" if max(windows) > 1 else "batch of each step")


def activations(title: str, rows: Mapping[str, Sequence[Float[np.ndarray, "..."]]]) -> Figure:
    """Draws histograms of the activations, a row for each choice of initial values and a column for each layer.

    The cells of a row share their axes. Each has its standard deviation as title: if it falls to 0 from layer to
    layer, so does the gradient.

    Args:
        title: What the layers are.
        rows: The activations of each layer, by the name of the choice.

    Raises:
        ValueError: If there is no row, or the rows have different numbers of layers.
    """
    _check_not_empty("rows", rows)
    counts = {len(layers) for layers in rows.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"rows: {sorted(counts)} layers, expected the same number in each row, at least 1")
    (columns,) = counts
    figure = new_figure(0.8 + 1.3 * len(rows), title)
    grid = figure.subplots(len(rows), columns, sharex="row", sharey=True, squeeze=False)
    for cells, (name, layers) in zip(grid, rows.items(), strict=True):
        values = np.concatenate([np.ravel(a) for a in layers])
        low, high = np.quantile(values, [0.002, 0.998])
        bins = np.linspace(low, high, 31) if high > low else np.linspace(low - 0.5, low + 0.5, 31)
        for cell, a in zip(cells, layers, strict=True):
            cell.stairs(np.histogram(a, bins)[0] / np.size(a), bins, fill=True, color="0.25", baseline=SMALLEST_SHARE)
            cell.xaxis.set_major_locator(MaxNLocator(2, prune="upper"))
            cell.tick_params(labelsize="small")
            cell.spines[["top", "right"]].set_visible(False)
            deviation = f"σ {np.std(a):,.0f}" if np.std(a) >= 100 else f"σ {np.std(a):.2g}"
            cell.set_title(deviation, fontsize="small")
        cells[0].set_ylabel(name, fontsize="medium")
    for i, cell in enumerate(grid[0], start=1):
        cell.set_title(f"layer {i}\n{cell.get_title()}", fontsize="small")
    grid[0, 0].set_yscale("log")  # the peak of ReLU at 0 would flatten the other bars
    grid[0, 0].set_ylim(SMALLEST_SHARE, 1)
    grid[0, 0].set_yticks([0.01, 1], ["1%", "100%"])
    grid[0, 0].minorticks_off()
    figure.supxlabel("activation", fontsize="medium")
    figure.supylabel("share of the activations, by initial weights", fontsize="medium")
    return figure


def accuracies_by_init_std(runs: Mapping[float, Mapping[str, History | Progress]]) -> Figure:
    """Draws the training accuracy over the steps, a panel for each standard deviation of the initial weights.

    Args:
        runs: What `fit` returns, or its history, by standard deviation and then by the name of the network. Each
            panel has the same two names; the first is dashed.

    Raises:
        ValueError: If there is no run, or a panel does not have the two names.
    """
    _check_not_empty("runs", runs)
    curves = {
        init_std: {name: (history_of(run).eval_step, history_of(run).train_accuracy) for name, run in pair.items()}
        for init_std, pair in runs.items()
    }
    names = list(next(iter(curves.values())))
    end = max(step[-1] for pair in curves.values() for step, _ in pair.values())
    for init_std, pair in curves.items():
        if list(pair) != names or len(names) != 2:
            raise ValueError(f"runs[{init_std!r}]: {', '.join(pair)}, expected the same two names in each")
    title = f"Initial standard deviation σ: {names[1]} solid, {names[0]} dashed"
    figure, cells = panels(title, len(curves), 4, 1.25, "step", "training accuracy", shared=True)
    for cell, (init_std, pair) in zip(cells, curves.items(), strict=True):
        for (step, accuracy), style in zip(pair.values(), ACCURACY_STYLES, strict=True):
            cell.plot(step, accuracy, **style)
        for name, (step, _) in pair.items():
            if step[-1] < end:
                cell.text(0.97, 0.08, f"{name}:\ndiverged", transform=cell.transAxes, ha="right", fontsize=8)
        set_title(cell, f"σ = {init_std:.2g}")
        cell.set_ylim(0, 1.03)
        cell.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
        cell.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    return figure


def overfitting(title: str, runs: Mapping[str, History | Progress]) -> Figure:
    """Draws the accuracies on training and test data over the steps, a panel for each run, with their final values.

    Args:
        title: What was trained.
        runs: What `fit` returns, or its history, by name.

    Raises:
        ValueError: If there is no run, or one whose accuracies are missing or not in [0, 1].
    """
    _check_not_empty("runs", runs)
    figure, cells = panels(f"{title}\ntrain dashed, test solid", len(runs), 2, 1.9, "step", "accuracy", shared=True)
    for cell, (name, run) in zip(cells, runs.items(), strict=True):
        history = evaluated_history(f"runs[{name!r}]", run)
        accuracies = history.train_accuracy, history.test_accuracy
        for style, accuracy in zip(ACCURACY_STYLES, accuracies, strict=True):
            cell.plot(history.eval_step, accuracy, **style)
        train, test = (float(accuracy[-1]) for accuracy in accuracies)
        set_title(cell, f"{name}\ntrain {train:.1%}, test {test:.1%}")
        cell.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        cell.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    cells[0].set_ylim(0, 1.03)
    return figure


def sweep_map(
    title: str,
    sweep: Sweep,
    marked: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    held_out: str = "test",
) -> Figure:
    """Draws the final test accuracy, in percent, over learning rate and initial standard deviation.

    The accuracy is the median over the seeds. A cross marks a combination that diverged with any seed.

    Args:
        title: What was trained.
        sweep: What `jaxnet.sweep` returns.
        marked: Combinations (learning rate, init_std) to frame, by name; those that were not swept are ignored.
        held_out: Name of the data that `test_accuracy` was evaluated on. Defaults to "test".
    """
    accuracy = 100 * np.median(np.nan_to_num(sweep.test_accuracy), axis=2).T  # (C, L)
    diverged = np.any(sweep.diverged, axis=2).T
    rows, columns = accuracy.shape
    figure = new_figure(1.4 + 0.42 * rows, title)
    axes = figure.subplots()
    axes.imshow(np.where(diverged, np.nan, accuracy), cmap="gray", vmin=0, vmax=110, aspect="auto", origin="lower")
    axes.grid(visible=False)  # a notebook may draw one by default
    for i, j in np.ndindex(rows, columns):
        if diverged[i, j]:
            axes.text(j, i, "×", ha="center", va="center", color=ORANGE, fontsize="x-large", fontweight="bold")
        else:
            color = "black" if accuracy[i, j] > 50 else "white"
            axes.text(j, i, f"{accuracy[i, j]:.0f}", ha="center", va="center", color=color)
    for n, (name, (rate, init_std)) in enumerate(marked.items()):
        matches = np.argwhere(np.isclose(sweep.init_std[:, None], init_std) & np.isclose(sweep.learning_rate, rate))
        for i, j in matches[:1]:
            style: dict[str, Any] = {"edgecolor": ORANGE, "linewidth": 2.5, "linestyle": "--" if n % 2 else "-"}
            axes.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, label=name, fill=False, **style))
    axes.set_xticks(range(columns), [f"{rate:.2g}" for rate in sweep.learning_rate])
    axes.set_yticks(range(rows), [f"{init_std:.2g}" for init_std in sweep.init_std])
    axes.set_xlabel("learning rate" + ("; × diverged" if diverged.any() else ""))
    axes.set_ylabel("initial standard deviation")
    set_title(axes, f"{held_out} accuracy in percent")
    if axes.patches:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _check_not_empty(name: str, mapping: Mapping[Any, Any]) -> None:
    if not mapping:
        raise ValueError(f"{name}: empty, expected at least one")


def _curves_of_sweep(sweep: Sweep) -> dict[str, np.ndarray]:
    """Returns the losses of each run by a name that tells what varies in the sweep."""
    if sweep.diverged.size > MAX_RUNS:
        raise ValueError(f"curves: a sweep of {sweep.diverged.size} runs, expected at most {MAX_RUNS}; see sweep_map")
    axes = {"": sweep.learning_rate, "σ ": sweep.init_std, "seed ": sweep.seed}
    varying = {label: (axis, values) for axis, (label, values) in enumerate(axes.items()) if len(values) > 1}
    return {
        ", ".join(f"{label}{values[index[axis]]:g}" for label, (axis, values) in varying.items()): sweep.loss[index]
        for index in np.ndindex(sweep.diverged.shape)
    }


def _name_ends(axes: Axes, spacing: float = 0.075) -> None:
    """Writes the names at the right where their lines end, at least `spacing` of the axes' height apart."""
    y = -math.inf
    for line in sorted(axes.lines, key=lambda line: float(np.asarray(line.get_ydata())[-1])):
        end = float(np.asarray(line.get_ydata())[-1])
        height = axes.transAxes.inverted().transform(axes.transData.transform((0, end)))[1] if end > 0 else 0.0
        y = max(y + spacing, min(height, 1.0))
        axes.annotate(
            str(line.get_label()), (1.01, y), xycoords="axes fraction", color=line.get_color(), va="center",
            fontweight="bold",
        )  # fmt: skip
