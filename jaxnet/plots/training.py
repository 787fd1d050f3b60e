"""Figures of one run. Each function returns a Figure, legible in grey and at 400 pixels, and shows nothing."""

import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from jaxnet.common.cleanup import cleanup
from jaxnet.common.validation import check_counts, check_labels, check_samples
from jaxnet.crosscheck.measure.step_sweep import StepErrors
from jaxnet.plots.style import (
    ACCURACY_STYLES,
    DPI,
    ORANGE,
    WIDTH,
    evaluated_history,
    new_figure,
    panels,
    running_median,
    set_accuracy_axis,
    set_loss_axis,
    set_step_axis,
    set_title,
)  # fmt: skip
from jaxnet.train.history import History, Progress

MAX_MARKERS = 50  # on a curve; more would hide its dashes


def learning_curves(history: History | Progress, held_out: str = "test", title: str = "") -> Figure:
    """Draws the loss of every step on a log axis, above the accuracies on training and test data, from step 0.

    Args:
        history: What `fit` returns, or its history, or the `history` of a `DivergedError`.
        held_out: Name of the data that `test_accuracy` was evaluated on. Defaults to "test".
        title: Network, data and run. Defaults to none.

    Raises:
        ValueError: If accuracies are missing or not in [0, 1].
    """
    history = evaluated_history("history", history)
    figure = new_figure(5, title)
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    _draw_loss(loss_axes, np.asarray(history.loss))
    _draw_accuracies(accuracy_axes, history, held_out)
    set_step_axis(accuracy_axes, max(1, len(history.loss), int(history.eval_step[-1])))
    return figure


def _draw_loss(axes: Axes, loss: np.ndarray) -> None:
    set_loss_axis(axes, loss)
    if not len(loss):
        set_title(axes, "no steps")
        return
    steps, medians, window = running_median(loss)
    if window > 1:
        axes.plot(loss, color="0.55", linewidth=0.5)
        axes.plot(steps, medians, color="black", linewidth=1.8)
        set_title(axes, f"thin: batch of each step; thick: running median of {window} steps")
    else:
        axes.plot(loss, color="black", marker="o", markersize=2.5)
        set_title(axes, "batch of each step")


def _draw_accuracies(axes: Axes, history: History, held_out: str) -> None:
    set_accuracy_axis(axes)
    accuracies = {"train": history.train_accuracy, held_out: history.test_accuracy}
    higher = max(accuracies, key=lambda name: float(accuracies[name][-1]))
    marked = slice(None) if len(history.eval_step) <= MAX_MARKERS else slice(0, 3)  # where the line is steepest
    for (name, accuracy), style in zip(accuracies.items(), ACCURACY_STYLES, strict=True):
        axes.plot(history.eval_step, accuracy, marker="o", markevery=marked, markersize=2.5, **style)
        alignment, offset = ("bottom", 1) if name == higher else ("top", -1)  # keeps the two labels apart
        axes.annotate(
            f"{name} {accuracy[-1]:.2%}", (history.eval_step[-1], accuracy[-1]), (6, offset), color=style["color"],
            va=alignment, textcoords="offset points",
        )  # fmt: skip


def first_layer_weights(
    W: Float[np.ndarray, "D M"] | Progress, image_shape: tuple[int, int], max_units: int = 100
) -> Figure:
    """Draws the weights of each hidden unit as an image, the largest norm first, on one color scale around 0.

    The scale leaves out the largest 0.5 % of the weights, which would make the others hard to tell apart.

    Args:
        W: The first layer's weights (D, M), or what `fit` returns for a network with an `Affine1` of images.
        image_shape: (height, width) with height * width = D.
        max_units: Largest number of units to draw, >= 1. Defaults to 100.

    Raises:
        ValueError: If W is empty or not finite, its columns do not have this shape, or `max_units` is below 1.
    """
    W = np.asarray(W.state.params["Affine1"]["W"] if isinstance(W, Progress) else W)
    if W.ndim != 2 or W.size == 0 or not np.isfinite(W).all():
        raise ValueError(f"W: {W.dtype} of shape {W.shape}, expected finite numbers (D, M), D and M at least 1")
    check_counts(max_units=max_units)
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:max_units]
    limit = float(np.quantile(np.abs(W), 0.995) or np.abs(W).max() or 1)
    title = f"First-layer weights: {len(order)} of {W.shape[1]:,} units\nlargest norm first"
    figure, images = _mosaic(title, W.T[order], image_shape, 10, cmap="cividis", vmin=-limit, vmax=limit)
    height = figure.get_figheight()
    bar = figure.add_axes((0.68, 1 - 0.24 / height, 0.26, 0.1 / height))
    bar.tick_params(labelsize="small")
    ticks = [-limit, 0, limit]
    figure.colorbar(images[0], cax=bar, orientation="horizontal", ticks=ticks, format="{x:.2g}", extend="both")
    return figure


def mistakes(
    x: Float[np.ndarray, "N D"],
    t: Int[np.ndarray, " N"],
    logits: Float[np.ndarray, "N C"],
    image_shape: tuple[int, int],
    max_images: int = 18,
) -> Figure:
    """Draws misclassified images, most confident first, with true and predicted class and the probability.

    Args:
        x: Images (N, D).
        t: Class numbers (N,), or one-hot rows (N, C).
        logits: The network's outputs (N, C).
        image_shape: (height, width) with height * width = D.
        max_images: Largest number of images to draw, >= 1. Defaults to 18.

    Raises:
        ValueError: If an argument is out of range or inconsistent with the others.
    """
    x, t, logits = np.asarray(x), np.asarray(t), np.asarray(logits)
    check_samples("x", x)
    check_samples("logits", logits)
    if len(logits) != len(x):
        raise ValueError(f"logits: {len(logits)} rows, expected {len(x)}, one for each row of x")
    check_labels("t", t, logits.shape)
    check_counts(max_images=max_images)
    true, predicted = t.argmax(axis=1) if t.ndim == 2 else t, logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True).astype(float)  # in float32, many would round to 1
    confidence = 1 / np.exp(shifted).sum(axis=1)  # softmax of the largest logit
    wrong = np.flatnonzero(predicted != true)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:max_images]
    order = f"the {len(shown)} most confident" if len(shown) < len(wrong) else "most confident first"
    legend = f"{order}: true → predicted class, probability" if len(wrong) else "no mistakes to show"
    title = f"{len(wrong):,} of {len(x):,} images misclassified\n{legend}"
    colors = {"cmap": "gray_r", "vmin": x.min(), "vmax": x.max()}
    figure, images = _mosaic(title, x[shown], image_shape, 6, caption=0.2, gap=0.12, **colors)
    for image, i in zip(images, shown, strict=True):
        left, right, _, top = image.get_extent()
        caption = f"{true[i]} → {predicted[i]}  {confidence[i]:.0%}"
        image.axes.text((left + right) / 2, top + 0.04, caption, fontsize=9, ha="center")
    return figure


def _mosaic(
    title: str,
    images: Float[np.ndarray, "K D"],
    image_shape: tuple[int, int],
    columns: int,
    caption: float = 0.0,
    gap: float = 0.04,
    **colors: Any,
) -> tuple[Figure, list[AxesImage]]:
    """Draws a grid of images below two lines of title, on one pair of axes in inches: many axes would take a second.

    `caption` is the space above each image, and `gap` that below and beside it; `colors` are options of `imshow`.
    """
    if len(image_shape) != 2 or min(image_shape) < 1 or math.prod(image_shape) != images.shape[1]:
        raise ValueError(f"image_shape: {image_shape}, expected (height, width) of {images.shape[1]} pixels in all")
    columns = min(columns, max(len(images), 4))
    width = (WIDTH - gap) / columns - gap
    height = width * image_shape[0] / image_shape[1]
    head, pitch = 0.6, caption + height + gap
    figure_height = head + math.ceil(len(images) / columns) * pitch
    figure = Figure(figsize=(WIDTH, figure_height), dpi=DPI)
    figure.suptitle(title, x=0.02, y=1 - 0.1 / figure_height, ha="left", va="top", fontsize=11)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, figure_height))
    axes.set_axis_off()
    drawn = []
    for i, image in enumerate(images.reshape(-1, *image_shape)):
        row, column = divmod(i, columns)
        left, bottom = gap + column * (width + gap), figure_height - head - row * pitch - caption - height
        extent = (left, left + width, bottom, bottom + height)
        drawn.append(axes.imshow(image, extent=extent, aspect="auto", **colors))
        axes.add_patch(Rectangle((left, bottom), width, height, fill=False, edgecolor="0.8", linewidth=0.5))
    return figure, drawn


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG file completely or not at all.

    Raises:
        ValueError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    with cleanup(partial(temporary.unlink, missing_ok=True)):
        try:
            figure.savefig(temporary, format="png")
            temporary.replace(path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def step_sizes(title: str, errors: Mapping[str, StepErrors], failed: Collection[str] = ()) -> Figure:
    """Draws, for each leaf, the relative error of the gradient against the step of a central difference: a V.

    Args:
        title: What was checked.
        errors: The errors of each leaf, as from `jaxnet.crosscheck.measure.step_sweep.step_errors`.
        failed: Names of the leaves whose check failed: these have crosses, and FAIL in the title. Defaults to none.

    Raises:
        ValueError: If there is no leaf.
    """
    if not errors:
        raise ValueError("errors: empty, expected at least one leaf")
    title = f"{title}: analytic gradient against central differences"
    labels = "step, relative to the leaf's size", "relative error; dashed: its floor"
    figure, cells = panels(title, len(errors), 3, 2.0, *labels, shared=True)
    for axes, (name, leaf_errors) in zip(cells, errors.items(), strict=True):
        (step, error), floor = leaf_errors, leaf_errors.floor
        positive = error > 0  # a log axis cannot show zeros
        axes.axhline(floor or 1e-17, color="0.4", linewidth=1, linestyle="--")
        color, marker, mark, weight = (ORANGE, "x", "FAIL ", "bold") if name in failed else ("black", ".", "", "normal")
        axes.loglog(step[positive], error[positive], markersize=5, linewidth=1, color=color, marker=marker)
        set_title(axes, f"{name} {mark}{floor:.0e}", weight=weight)
        if leaf_errors.linear:
            axes.text(1, 0.98, "linear: no truncation\nerror, only roundoff", ha="right", va="top", fontsize=8,
                      transform=axes.transAxes)  # fmt: skip
        axes.set_xticks([1e-12, 1e-6, 1])
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"1e{math.log10(value):.0f}")
        axes.minorticks_off()
    return figure
