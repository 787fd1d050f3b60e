"""Shows the history of a run in a notebook: its last figures, and the curves of loss and accuracy."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnet.plots.html import figures, framed, table
from jaxnet.plots.svg import Axis, Curve, line_chart

if TYPE_CHECKING:
    from jaxnet.train.history import History

POINTS = 100  # of the loss: medians of blocks of steps


def history_html(history: "History") -> str:
    """Returns the HTML of a history, with its style."""
    loss, steps, train, test = (np.asarray(values, np.float64) for values in history)
    last = {
        "steps": f"{len(loss):,}",
        "loss in nats": f"{loss[-1]:.4g}" if len(loss) else "",
        "train accuracy": f"{train[-1]:.2%}" if len(train) else "",
        "test accuracy": f"{test[-1]:.2%}" if len(test) else "",
    }
    charts = [chart for chart in (_loss_chart(loss), _accuracy_chart(steps, train, test)) if chart]
    return framed(table(list(last), [list(last.values())], numbers=list(last)), figures(*charts))


def _loss_chart(loss: np.ndarray) -> str:
    """Returns the curve of the loss on a log axis; "" if there are no positive losses."""
    block = -(-len(loss) // POINTS) or 1
    starts = range(0, len(loss), block)
    medians = [float(np.median(loss[i : i + block])) for i in starts]
    middles = [float(np.mean(np.arange(i, min(i + block, len(loss))) + 1)) for i in starts]
    positive = [median for median in medians if np.isfinite(median) and median > 0]
    if not positive:
        return ""
    title = f"loss in nats: medians of {block} batches" if block > 1 else "loss in nats: each batch"
    return line_chart(title, "step", [Curve("", middles, medians)], Axis.of([0, *middles]), Axis.of(positive, log=True))


def _accuracy_chart(steps: np.ndarray, train: np.ndarray, test: np.ndarray) -> str:
    """Returns the curves of the accuracies; "" if there is no evaluation."""
    if not len(steps):
        return ""
    curves = [Curve("test", steps.tolist(), test.tolist()), Curve("train", steps.tolist(), train.tolist(), dashed=True)]
    axis = Axis.of([*train.tolist(), *test.tolist()], percent=True)
    return line_chart("accuracy: test, train dashed", "step", curves, Axis.of([0, *steps.tolist()]), axis)
