"""Pictures of a run. Each function returns a Figure and shows nothing; each reads in grey and small."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from jaxnet.training import History

DPI = 150
SMOOTHED = 50  # parts of the loss curve's length that one smoothed point is the mean of


def learning_curves(history: History) -> Figure:
    """The loss of every step, on a log axis, above the accuracies on train and test.

    Args:
        history: As from `fit`: loss (S,), S >= 1, in nats; accuracies (E,) in [0, 1] after eval_step (E,) steps.

    Raises:
        ValueError: There is no step to draw.
    """
    if len(history.loss) == 0:
        raise ValueError("history: no step was made, expected at least one; there is nothing to draw")
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)

    steps = np.arange(1, len(history.loss) + 1)
    above.semilogy(steps, history.loss, color="0.75", linewidth=0.6, label="each batch")
    window = len(steps) // SMOOTHED
    if window > 1:
        mean = np.convolve(history.loss, np.ones(window) / window, mode="valid")
        above.semilogy(steps[window - 1 :], mean, color="black", label=f"mean of the last {window}")
    above.set_ylabel("loss, nats")
    above.legend(loc="upper right", frameon=False)

    for accuracies, name, style in [
        (history.train_accuracy, "train", {"color": "0.55", "linestyle": "--"}),
        (history.test_accuracy, "test", {"color": "black", "linestyle": "-"}),
    ]:
        label = f"{name}, {accuracies[-1]:.2%} at the end"
        below.plot(history.eval_step, accuracies, marker=".", markersize=3, label=label, **style)
    if len(history.test_accuracy) > 2:  # the untrained network is at chance, and would flatten all that follows
        below.set_ylim(bottom=max(0.0, min(history.train_accuracy[1:].min(), history.test_accuracy[1:].min()) - 0.05))
    below.set_ylabel("accuracy")
    below.set_xlabel("step")
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.legend(loc="lower right", frameon=False)
    for axes in (above, below):
        _bare(axes)
        axes.grid(alpha=0.3)
    return figure


def first_layer_weights(W: NDArray[np.floating], image_shape: tuple[int, int], most: int = 100) -> Figure:
    """What each hidden unit looks for: a column of W as an image, the strongest first, black and white about a grey 0.

    Args:
        W: (D, M), the first layer's weights.
        image_shape: (height, width), height times width D.
        most: Units drawn at most, >= 1.

    Raises:
        ValueError: The images do not fit W.
    """
    _check_images("W", W.T, image_shape)
    order = np.argsort(-np.linalg.norm(W, axis=0))[:most]
    limit = float(np.abs(W).max()) or 1.0
    figure, cells = _grid(len(order), f"First-layer weights: {len(order)} of {W.shape[1]} units, the strongest first")
    for cell, unit in zip(cells, order, strict=True):
        image = cell.imshow(W[:, unit].reshape(image_shape), cmap="gray", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=cells, shrink=0.5, label="weight")
    return figure


def mistakes(
    x: NDArray[np.floating],
    t: NDArray[np.integer],
    logits: NDArray[np.floating],
    image_shape: tuple[int, int],
    most: int = 36,
) -> Figure:
    """The images that the network gets wrong, the surest mistakes first: true → predicted class, and how sure.

    Args:
        x: (N, D), the images.
        t: (N,), their class numbers.
        logits: (N, C), what the network says of them.
        image_shape: (height, width), height times width D.
        most: Images drawn at most, >= 1.

    Raises:
        ValueError: The arguments do not fit one another.
    """
    _check_images("x", x, image_shape)
    if t.shape != (len(x),) or logits.shape[:1] != (len(x),):
        raise ValueError(f"t, logits: shapes {t.shape} and {logits.shape}, expected ({len(x)},) and ({len(x)}, C)")
    predicted = logits.argmax(axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure = 1 / shifted.sum(axis=1)  # softmax of the largest logit
    wrong = np.flatnonzero(predicted != t)
    drawn = wrong[np.argsort(-sure[wrong])][:most]
    share = f"{len(wrong):,} of {len(x):,} test images are wrong"
    figure, cells = _grid(len(drawn), f"{share}; the {len(drawn)} surest" if len(drawn) < len(wrong) else share)
    for cell, i in zip(cells, drawn, strict=True):
        cell.imshow(x[i].reshape(image_shape), cmap="gray_r")
        cell.set_title(f"{t[i]} → {predicted[i]}  {sure[i]:.0%}", fontsize=9, pad=2)
    return figure


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """Square-ish rows of empty cells."""
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(7, 1 + 6.5 * rows / columns), dpi=DPI, layout="constrained")
    figure.suptitle(title)
    if count == 0:
        return figure, []
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for cell in cells:
        cell.set_axis_off()
    return figure, cells[:count]


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _check_images(name: str, images: NDArray[np.floating], image_shape: tuple[int, int]) -> None:
    if images.ndim != 2 or images.shape[1] != image_shape[0] * image_shape[1] or len(images) == 0:
        raise ValueError(f"{name}: {images.shape[-1]} pixels an image, expected {image_shape[0]} by {image_shape[1]}")
