"""Joins two consecutive layers into one, because two wrong derivatives may be right together."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.layer import CheckableLayer
from jaxnet.crosscheck.inspect.trees import Array, Leaves


@dataclass(eq=False, kw_only=True)
class CheckableChain(Checkable):
    """Two layers, the second of which takes the output of the first as its input `link`.

    The leaves of both are named with the prefix of their layer.
    """

    name: str
    first: CheckableLayer
    second: CheckableLayer
    link: str
    leaves: Leaves
    prefixes: tuple[str, str]
    takes_dout: bool = True

    def open(self, leaves: Leaves) -> Instance:
        first, second = (self._open(layer, p, leaves) for layer, p in zip(self._both(), self.prefixes, strict=True))
        shapes: list[tuple[int, ...]] = []

        def forward(*inputs: Any) -> Any:
            first.inputs = inputs
            y = first.forward()
            shapes[:] = [y.shape]
            named = zip(self.second.names, second.inputs, strict=True)
            second.inputs = tuple(y if name == self.link else value for name, value in named)
            z = second.forward()
            return z if second.outputs.result is True else second.outputs.unpack(z)

        def backward(*douts: Array) -> dict[str, Any]:
            later = second.backward_as_given(*douts)
            dout = later.pop(self.link)
            if dout is None or np.shape(dout) != shapes[0]:
                return dict.fromkeys(self.leaves)
            earlier = first.backward(np.asarray(dout))
            found = {self.prefixes[0] + name: gradient for name, gradient in earlier.items()}
            return found | {self.prefixes[1] + name: gradient for name, gradient in later.items()}

        arrays = {self.prefixes[0] + name: array for name, array in first.arrays.items()}
        arrays |= {self.prefixes[1] + name: array for name, array in second.arrays.items() if name != self.link}
        return Instance(forward, backward, first.inputs, arrays)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return (leaves,)

    def _both(self) -> tuple[CheckableLayer, CheckableLayer]:
        return self.first, self.second

    def _open(self, layer: CheckableLayer, prefix: str, leaves: Leaves) -> Instance:
        own = {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}
        dtypes = {leaf.dtype for leaf in leaves.values()}
        for name, leaf in layer.leaves.items():  # the link, which the first layer's output replaces
            own.setdefault(name, leaf.astype(dtypes.pop() if len(dtypes) == 1 else leaf.dtype))
        return layer.open(own)


def chain(first: CheckableLayer, second: CheckableLayer) -> CheckableChain:
    """Returns two consecutive layers as one, which is right if their errors cancel, as in softmax and its loss.

    Args:
        first: The first layer.
        second: The second layer, which takes the output of the first.

    Raises:
        SubjectError: If the second does not take the output of the first, or has no gradient for it.
    """
    y = first.forward(first.leaves)
    links = [
        name
        for name in second.names
        if name in second.leaves and np.array_equal(second.leaves[name], y, equal_nan=True)
    ]
    if not links:
        raise SubjectError(f"{second.name}: no input that is the output of {first.name}, expected consecutive layers")
    names = (f"{first.name}.", f"{second.name}.")
    prefixes = names if names[0] != names[1] else (f"{first.name}1.", f"{second.name}2.")
    leaves = {prefixes[0] + name: leaf for name, leaf in first.leaves.items()}
    leaves |= {prefixes[1] + name: leaf for name, leaf in second.leaves.items() if name != links[0]}
    return CheckableChain(
        name=f"{prefixes[0][:-1]} and {prefixes[1][:-1]}",
        first=first,
        second=second,
        link=links[0],
        leaves=leaves,
        prefixes=prefixes,
        takes_dout=second.takes_dout,
    )
