"""The look that all figures share: size, panels, titles, line styles, smoothed losses, and axes of accuracies.

At a width of 400 pixels an inch has 67 of them: a font of 8 points, the smallest in use, is more than 7 pixels high.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxnet.train.history import History, Progress

WIDTH, DPI = 6.0, 150  # inches, dots per inch
WINDOWS = 50  # of a running median, in a whole run
POINTS = 200  # of a smoothed line
BLUE, ORANGE = "#003f7f", "#b05c00"
ACCURACY_STYLES: list[dict[str, Any]] = [  # train, held-out
    {"color": ORANGE, "linestyle": "--", "linewidth": 1.4},
    {"color": BLUE, "linestyle": "-", "linewidth": 1.4},
]
COLORS = ["black", BLUE, ORANGE, "#7a4d9c", "#3f86bd", "#707070"]
DASHES = ["-", (0, (6, 2)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)), (0, (10, 3)), (0, (3, 1, 1, 1, 1, 1))]
MARKERS = ["", "o", "s", "^"]


def new_figure(height: float, title: str = "") -> Figure:
    """Returns an empty figure, `height` inches high, below a title at the left."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def panels(
    title: str, count: int, columns: int, height: float, x_label: str, y_label: str, shared: bool = False
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with this many panels, each `height` inches high, whose axes have common labels."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(0.75 + height * rows, title)
    grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
    for cell in grid[count:]:
        cell.set_axis_off()
    for cell in grid[:count]:
        open_frame(cell)
    figure.supxlabel(x_label, fontsize="medium")
    figure.supylabel(y_label, fontsize="medium")
    return figure, grid[:count]


def open_frame(axes: Axes) -> None:
    """Draws two sides of the frame alone, and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.5)


def set_title(axes: Axes, text: str, **style: Any) -> None:
    """Writes the title of one pair of axes, at its left."""
    axes.set_title(text, loc="left", fontsize="medium", **style)


def line_style(i: int) -> dict[str, Any]:
    """Returns the style of the i-th line: dashes and markers tell 24 apart without colors."""
    color, dashes, marker = COLORS[i % 6], DASHES[i % 6], MARKERS[i // 6 % 4]
    return {"color": color, "linestyle": dashes, "marker": marker, "markersize": 4, "markevery": 0.1, "linewidth": 1.6}


def history_of(run: History | Progress) -> History:
    """Returns the history of what `fit` returned."""
    return run.history if isinstance(run, Progress) else run


def evaluated_history(name: str, run: History | Progress) -> History:
    """Returns the history of a run.

    Raises:
        ValueError: If it has no evaluation, or accuracies that are not in [0, 1].
    """
    history = history_of(run)
    count = len(history.eval_step)
    for field in ("train_accuracy", "test_accuracy"):
        accuracy = np.asarray(getattr(history, field))
        if accuracy.shape != (max(1, count),) or not ((accuracy >= 0) & (accuracy <= 1)).all():
            raise ValueError(f"{name}.{field}: {accuracy}, expected {count} numbers in [0, 1], at least 1")
    return history


def running_median(
    loss: Float[np.ndarray, " S"],
) -> tuple[Int[np.ndarray, " P"], Float[np.ndarray, " P"], int]:
    """Smooths the loss of every step. Medians are robust to spikes, and commute with the logarithm.

    The window around a step is narrower near step 0, whose loss is the first point: what is drawn there was measured.

    Returns:
        The steps, the median around each of them, and the number of steps in a whole window.
    """
    half = len(loss) // WINDOWS // 2
    steps = np.unique(np.linspace(0, len(loss) - 1, min(POINTS, len(loss))).astype(int))
    radii = np.minimum(steps, half)
    medians = [np.median(loss[i - radius : i + radius + 1]) for i, radius in zip(steps, radii, strict=True)]
    return steps, np.array(medians), 2 * half + 1


def set_loss_axis(axes: Axes, loss: Float[np.ndarray, " S"]) -> None:
    """Labels an axis of losses, and makes it logarithmic where there are positive ones."""
    open_frame(axes)
    axes.set_ylabel("loss (nats)")
    positive = loss[(loss > 0) & np.isfinite(loss)]
    if not positive.size:  # a log axis cannot show zeros
        axes.set_yticks([0])
        return
    narrow = positive.max() < 1000 * positive.min()
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def set_accuracy_axis(axes: Axes) -> None:
    """Labels an axis of accuracies from 0 to 100 %, on which distances are differences of sqrt(1 - accuracy).

    An untrained network at 10 % and two trained ones at 97 % and 98 % are all told apart.
    """
    open_frame(axes)
    axes.set_yscale(
        "function",
        functions=(
            lambda accuracy: -np.sign(1 - accuracy) * np.sqrt(np.abs(1 - accuracy)),
            lambda height: 1 + np.sign(height) * height**2,
        ),
    )
    axes.set_ylim(0, 1.001)  # leaves room for markers at 1
    axes.set_yticks([0, 0.5, 0.8, 0.9, 0.95, 0.98, 1], ["0", "50%", "80%", "90%", "95%", "98%", "100%"])
    axes.set_ylabel("accuracy")


def set_step_axis(axes: Axes, end: int, count: int = 6) -> None:
    """Labels an axis of steps from 0 to the end of a run."""
    axes.set_xlabel("step")
    axes.set_xlim(-0.02 * end, 1.02 * end)
    axes.xaxis.set_major_locator(MaxNLocator(count, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
