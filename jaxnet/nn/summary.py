"""The summary of a network: its layers, the shapes of their parameters, and how many numbers these are."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    from jaxnet.nn.layers import Layer

HEADER = ("layer", "kind", "parameters", "count")


def summary(net: "Layer") -> str:
    """Returns a table of the layers of a network, with the sum of their parameters in the last row."""
    rows = list(_rows(net))
    total = "", "", "", sum(count for *_, count in rows)
    table = [HEADER, *((*cells, f"{count:,}") for *cells, count in (*rows, total))]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1].rjust(widths[-1])]
        )
        for row in table
    )


def kind_of(layer: "Layer") -> str:
    """Returns the kind of a layer with its sizes, such as Affine(784, 50)."""
    kind, *sizes = layer.description
    return f"{kind}({', '.join(map(str, sizes))})"


def _rows(net: "Layer", path: str = "") -> Iterator[tuple[str, str, str, int]]:
    for name, layer in net.layers.items():
        if layer.layers:
            yield from _rows(layer, f"{path}{name}.")
        else:
            shapes = jax.eval_shape(lambda key, layer=layer: layer.init(key, 1.0), jax.random.key(0))
            parameters = ", ".join(f"{leaf} {array.shape}" for leaf, array in shapes.items())
            count = sum(math.prod(array.shape) for array in shapes.values())
            yield f"{path}{name}", kind_of(layer), parameters, count
