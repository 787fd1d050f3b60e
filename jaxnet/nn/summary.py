"""The summary of a network: its layers, the shapes of their parameters, and how many numbers these are."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING

import jax

from jaxnet.nn.tree_paths import leaves_by_path
from jaxnet.plots.html import framed, table

if TYPE_CHECKING:
    from jaxnet.nn.layers import Layer

HEADER = ("layer", "kind", "parameters", "count")


def summary(net: "Layer") -> str:
    """Returns a table of the layers of a network, with the sum of their parameters in the last row."""
    rows = [HEADER, *_rows(net)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1].rjust(widths[-1])]
        )
        for row in rows
    )


def summary_html(net: "Layer") -> str:
    """Returns the same table as a notebook shows it."""
    rows = [[escape(cell) for cell in row] for row in _rows(net)]
    return framed(table(HEADER, rows, numbers=("count",)))


@cache
def param_shapes(net: "Layer") -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by its dotted name, {"Affine1.W": (784, 50), ...}."""
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), 1.0))
    return {name: leaf.shape for name, leaf in leaves_by_path(params).items()}


def kind_of(layer: "Layer") -> str:
    """Returns the kind of a layer with its sizes, such as Affine(784, 50)."""
    kind, *sizes = layer.description
    return f"{kind}({', '.join(map(str, sizes))})"


def _rows(net: "Layer") -> list[Sequence[str]]:
    """Returns the rows of the table, with the sum in the last one."""
    rows = list(_layers(net))
    total = "total", "", "", sum(count for *_, count in rows)
    return [(*cells, f"{count:,}") for *cells, count in (*rows, total)]


def _layers(net: "Layer", path: str = "") -> Iterator[tuple[str, str, str, int]]:
    for name, layer in net.layers.items():
        if layer.layers:
            yield from _layers(layer, f"{path}{name}.")
        else:
            shapes = param_shapes(layer)
            parameters = ", ".join(f"{leaf} {shape}" for leaf, shape in shapes.items())
            yield f"{path}{name}", kind_of(layer), parameters, sum(map(math.prod, shapes.values()))
