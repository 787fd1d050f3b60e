"""Pictures of a run. Each function returns a Figure and shows nothing; each reads in grey and at 400 pixels across."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxnet.crosscheck.measure.step_sweep import StepErrors
from jaxnet.train.step import History
from jaxnet.validation import check_counts, check_labels, check_samples

WIDTH, DPI = 6.0, 150  # inches, and pixels to the inch
POINTS = 50  # on the smoothed loss; and markers at most on another line
STYLES = [("train", "#c46a00", "--"), ("test", "#003f7f", "-")]  # light and dark in grey


def learning_curves(history: History) -> Figure:
    """The loss of every step, on a log axis, above the accuracies on train and test.

    Smoothed by medians: a spike does not move them, and they commute with the logarithm.

    Args:
        history: As from `fit`, or from `DivergedError`, perhaps without a step: loss (S,), in nats; accuracies (E,) in
            [0, 1] after eval_step (E,) steps, E >= 1.

    Raises:
        ValueError: Accuracies are missing, or not in [0, 1].
    """
    loss, eval_step, *accuracies = (np.asarray(a) for a in history)
    for (name, *_), a in zip(STYLES, accuracies, strict=True):
        if a.shape != (max(1, len(eval_step)),) or not ((a >= 0) & (a <= 1)).all():
            raise ValueError(f"history.{name}_accuracy: {a}, expected {len(eval_step)} numbers in [0, 1], at least 1")
    figure = Figure(figsize=(WIDTH, 5), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)

    steps, block = np.arange(1, len(loss) + 1), len(loss) // POINTS
    if block > 1:
        above.plot(steps, loss, color="0.75", linewidth=0.5)
        middle, smooth = ([np.median(a[i : i + block]) for i in range(0, len(a), block)] for a in (steps, loss))
        above.plot(middle, smooth, color="black", linewidth=1.8)
        what = f"each batch thin, median of every {block} thick"
    else:
        above.plot(steps, loss, color="black", marker="o", markersize=2.5)
        what = "each batch" if len(loss) else "no step was made"
    above.set_title(f"loss in nats: {what}", loc="left", fontsize="medium")
    if (positive := loss[(loss > 0) & np.isfinite(loss)]).size:
        narrow = positive.max() < 1000 * positive.min()
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        above.yaxis.set_major_formatter("{x:g}")
        above.minorticks_off()
    else:  # no step, or nothing but zeros, which a log axis cannot show
        above.set_yticks([0])

    higher = "test" if accuracies[1][-1] > accuracies[0][-1] else "train"
    for (name, color, dashes), a in zip(STYLES, accuracies, strict=True):
        marker = "o" if len(a) <= POINTS else ""
        below.plot(eval_step, a, color=color, linestyle=dashes, linewidth=1.3, marker=marker, markersize=2.5)
        va, lift = ("bottom", 1) if name == higher else ("top", -1)  # however near the ends, the labels stand apart
        label = {"text": f"{name} {a[-1]:.2%}", "color": color, "va": va, "textcoords": "offset points"}
        below.annotate(xy=(eval_step[-1], a[-1]), xytext=(6, lift), **label)
    # The untrained network is at chance, and would flatten all that follows.
    low, high = np.min([a[len(a) > 2 :] for a in accuracies]), np.max(accuracies)
    room = 0.08 * (high - low) + 0.005
    below.set_ylim(max(0, low - room), min(1, high + room))
    below.set_title("accuracy: train dashed, test solid", loc="left", fontsize="medium")
    below.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    below.set_xlabel("step")
    end = max(1, len(loss), eval_step[-1])
    below.set_xlim(-0.02 * end, 1.02 * end)
    below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    below.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.6)
    return figure


def first_layer_weights(W: Float[np.ndarray, "D M"], image_shape: tuple[int, int], most: int = 100) -> Figure:
    """What each hidden unit looks for: a column of W as an image, the largest norm first, all on one scale about 0.

    The scale ends where 1 weight in 200 lies beyond: a single large one would grey out the others.

    Args:
        W: (D, M), the first layer's weights.
        image_shape: (height, width), height times width D.
        most: Units drawn at most, >= 1.

    Raises:
        ValueError: W is empty or not finite, its columns are no such images, or `most` is below 1.
    """
    W = np.asarray(W)
    if W.ndim != 2 or W.size == 0 or not np.isfinite(W).all():
        raise ValueError(f"W: {W.dtype} of shape {W.shape}, expected finite numbers (D, M), D and M at least 1")
    check_counts(most=most)
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:most]
    limit = float(np.quantile(np.abs(W), 0.995) or np.abs(W).max() or 1)
    title = f"First-layer weights: {len(order)} of {W.shape[1]:,} units\nlargest norm first"
    figure, images = _mosaic(
        title, W.T[order], image_shape, 10, "cividis", (-limit, limit)
    )  # light and dark about grey
    tall = figure.get_figheight()
    bar = figure.add_axes((0.68, 1 - 0.24 / tall, 0.26, 0.1 / tall))
    bar.tick_params(labelsize="small")
    ticks = [-limit, 0, limit]
    figure.colorbar(images[0], cax=bar, orientation="horizontal", ticks=ticks, format="{x:.2g}", extend="both")
    return figure


def mistakes(
    x: Float[np.ndarray, "N D"],
    t: Int[np.ndarray, " N"],
    logits: Float[np.ndarray, "N C"],
    image_shape: tuple[int, int],
    most: int = 36,
) -> Figure:
    """The images that the network gets wrong, the surest mistakes first: true → predicted class, and its probability.

    Args:
        x: (N, D), the images.
        t: (N,), their class numbers, or (N, C), one-hot rows.
        logits: (N, C), what the network says of them.
        image_shape: (height, width), height times width D.
        most: Images drawn at most, >= 1.

    Raises:
        ValueError: An argument is out of range or does not fit the others.
    """
    x, t, logits = np.asarray(x), np.asarray(t), np.asarray(logits)
    check_samples("x", x)
    check_samples("logits", logits)
    if len(logits) != len(x):
        raise ValueError(f"logits: {len(logits)} rows, expected {len(x)}, one for each row of x")
    check_labels("t", t, logits.shape)
    check_counts(most=most)
    true, predicted = t.argmax(axis=1) if t.ndim == 2 else t, logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True).astype(float)  # in float32 many would be 1, and tie
    sure = 1 / np.exp(shifted).sum(axis=1)  # softmax of the largest logit
    wrong = np.flatnonzero(predicted != true)
    drawn = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    shown = f"the {len(drawn)} surest" if len(drawn) < len(wrong) else "surest first"
    what = f"{shown}: true → predicted, and its probability" if len(wrong) else "no mistakes to show"
    title = f"{len(wrong):,} of {len(x):,} images misread\n{what}"
    figure, images = _mosaic(title, x[drawn], image_shape, 6, "gray_r", (x.min(), x.max()), caption=0.2, gap=0.12)
    for image, i in zip(images, drawn, strict=True):
        left, right, _, top = image.get_extent()
        says = f"{true[i]} → {predicted[i]}  {sure[i]:.0%}"
        image.axes.text((left + right) / 2, top + 0.04, says, fontsize=9, ha="center")
    return figure


def _mosaic(
    title: str,
    images: Float[np.ndarray, "K D"],
    image_shape: tuple[int, int],
    columns: int,
    cmap: str,
    limits: tuple[float, float],
    caption: float = 0.0,
    gap: float = 0.04,
) -> tuple[Figure, list[AxesImage]]:
    """Rows of images below two lines of title, `caption` inches above each image, `gap` inches below and beside it.

    All lie on one sheet, measured in inches: axes of its own for each would take a second.
    """
    if len(image_shape) != 2 or min(image_shape) < 1 or math.prod(image_shape) != images.shape[1]:
        raise ValueError(f"image_shape: {image_shape}, expected (height, width) of {images.shape[1]} pixels in all")
    columns = min(columns, max(len(images), 4))
    width = (WIDTH - gap) / columns - gap
    height = width * image_shape[0] / image_shape[1]
    head, pitch = 0.6, caption + height + gap
    tall = head + math.ceil(len(images) / columns) * pitch
    figure = Figure(figsize=(WIDTH, tall), dpi=DPI)
    figure.suptitle(title, x=0.02, y=1 - 0.1 / tall, ha="left", va="top", fontsize=11)
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, tall))
    sheet.set_axis_off()
    low, high = limits
    drawn = []
    for i, image in enumerate(images.reshape(-1, *image_shape)):
        row, column = divmod(i, columns)
        left, bottom = gap + column * (width + gap), tall - head - row * pitch - caption - height
        extent = (left, left + width, bottom, bottom + height)
        drawn.append(sheet.imshow(image, cmap=cmap, vmin=low, vmax=high, extent=extent, aspect="auto"))
        sheet.add_patch(Rectangle((left, bottom), width, height, fill=False, edgecolor="0.8", linewidth=0.5))
    return figure, drawn


def save(figure: Figure, path: Path) -> None:
    """Into a PNG, whole or not at all: written beside, then renamed.

    Raises:
        ValueError: The file cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(beside, format="png")
        beside.replace(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); name another file") from error
    finally:
        beside.unlink(missing_ok=True)


def step_sizes(title: str, errors: Mapping[str, StepErrors]) -> Figure:
    """Draws, for each leaf, the error between the gradient and a central difference against the step size: a V.

    Args:
        title: What was checked.
        errors: Of each leaf, as from `jaxnet.crosscheck.measure.step_sweep.step_errors`; at least one.

    Raises:
        ValueError: If there is no leaf.
    """
    if not errors:
        raise ValueError("errors: none, expected at least one leaf with a gradient of its shape")
    columns = min(3, len(errors))
    rows = math.ceil(len(errors) / columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.0 * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(errors) :]:
        axes.set_axis_off()
    for axes, (name, found) in zip(grid.flat, errors.items(), strict=False):
        (step, error), floor = found, found.floor
        shown = error > 0  # a log axis has no place for what agrees to the last digit
        axes.axhline(floor or 1e-17, color="0.6", linewidth=0.8, linestyle="--")
        axes.loglog(step[shown], error[shown], color="black", marker="o", markersize=2.5, linewidth=1)
        axes.set_title(f"{name}: {floor:.0e}", loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92", linewidth=0.5)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.minorticks_off()
    figure.suptitle(f"{title}: error against step size, and its floor", x=0.01, ha="left", fontsize="large")
    figure.supxlabel("step, relative to the leaf's size", fontsize="medium")
    figure.supylabel("error, relative to the gradient", fontsize="medium")
    return figure
