"""Finds what corrects a gradient of a wrong shape: a missing sum over an axis, or a superfluous one.

Shapes alone do not tell: (4, 4) for (4,) may be summed over either axis, and the sum may be wrong as well. So each way
to the leaf's shape is compared with difference quotients, and only one that is right is named.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.context import Context
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.dtypes import is_float_dtype
from jaxnet.crosscheck.inspect.checkable import Array, Backward, Checkable, with_backward
from jaxnet.crosscheck.measure.derivation import Derivations
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.structures import Structure
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.report import Leaf

Shape = tuple[int, ...]
RIGHT = "the gradient for {} has shape {}, expected {}: {}, which makes it right (relative error {:.1e})"
BROADCAST = "the gradient for {} has shape {}, expected {}: an update broadcasts it"
SUMMED = (
    "the gradient for {} has shape {}, expected {}: it is the right gradient summed over {} (relative error {:.1e}), "
    "so leave out that sum"
)


class Mend(NamedTuple):
    """A way from the shape of a gradient to that of its leaf.

    Attributes:
        words: What is to be done, or over which axis a sum was one too many.
        apply: Returns the gradient in the shape of the leaf.
        along: The directions along which a gradient that was summed too far can be compared; None for all.
    """

    words: str
    apply: Callable[[Array], Array]
    along: Structure | None = None


def in_shapes_of_parameters(checkable: Checkable, gradients: Mapping[str, Any]) -> tuple[Checkable, list[str]]:
    """Reshapes gradients of parameters that an update would broadcast; returns the code, and a sentence for each.

    A gradient (n,) of b (1, n) gives the same `b -= rate * db`, and one of a single number may have any shape. The
    gradient of an input must have its shape, because the layer before may not broadcast it.

    Args:
        checkable: The code.
        gradients: The gradients that its backward pass returned.
    """
    inputs = checkable.open(leaves := copies(checkable.leaves)).names_of_inputs(leaves)
    reshaped, sentences = checkable, []
    for name, leaf in checkable.leaves.items():
        gradient = gradients.get(name)
        if name in inputs or gradient is None or not _is_broadcast(shape := np.shape(gradient), leaf.shape):
            continue
        reshaped = _with_gradient(reshaped, name, partial(_in_shape, shape=leaf.shape))
        sentences.append(BROADCAST.format(name, shape, leaf.shape))
    return reshaped, sentences


def _is_broadcast(shape: Shape, target: Shape) -> bool:
    """Returns whether a gradient lacks leading axes of length 1 alone, or is of a single number."""
    without_leading = target[len(target) - len(shape) :] == shape and set(target[: len(target) - len(shape)]) <= {1}
    return shape != target and (without_leading or (not target and set(shape) == {1}))


def _in_shape(gradient: Any, shape: Shape) -> Array:
    return np.reshape(gradient, shape)


def explain_shapes(context: Context, gradients: Mapping[str, Any], leaves: list[Leaf]) -> list[Leaf]:
    """Returns the leaves, with the sum or axis that corrects a gradient of a wrong shape, if there is one.

    Args:
        context: The state of the check.
        gradients: The gradients that the backward pass returned, by leaf.
        leaves: The leaves.
    """
    explained = list(leaves)
    for place, leaf in enumerate(leaves):
        gradient, shape = np.asarray(gradients.get(leaf.name)), context.checkable.leaves[leaf.name].shape
        if leaf.cause is not Cause.WRONG_FORM or not is_float_dtype(gradient.dtype) or gradient.shape == shape:
            continue
        try:
            sentences = (_sentence(context, leaf.name, mend) for mend in _mends(gradient.shape, shape))
            detail = next(filter(None, sentences), leaf.detail)
        except OutOfTime:  # the shape is wrong all the same
            return explained
        explained[place] = replace(leaf, detail=detail)
    return explained


def _mends(shape: Shape, target: Shape) -> Iterator[Mend]:
    """Yields the ways from one shape to another.

    Examples:
        >>> [mend.words for mend in _mends((4, 3), (3,))], [mend.words for mend in _mends((4, 4), (4,))]
        (['sum it over axis 0'], ['sum it over axis 0', 'sum it over axis 1'])
        >>> [mend.words for mend in _mends((1, 3), (3,))], [mend.words for mend in _mends((3,), (1, 3))]
        (['remove axis 0'], ['add axis 0'])
        >>> [mend.words for mend in _mends((4, 1), (4, 3))], [mend.words for mend in _mends((3, 4), (4, 3))]
        (['axis 1'], ['transpose it'])
    """
    for axes, keeps in _sums(shape, target):
        is_long = any(shape[axis] != 1 for axis in axes)
        words = f"sum it over {_named(axes)}{' with keepdims=True' if keeps else ''}" if is_long else ""
        yield Mend(words or f"remove {_named(axes)}", partial(_sum, axes=axes, target=target))
    if len(shape) > 1 and shape == target[::-1]:
        yield Mend("transpose it", np.transpose)
    for axes, _ in _sums(target, shape):
        spread = partial(_spread, axes=axes, target=target)
        is_short = all(target[axis] == 1 for axis in axes)
        yield Mend(f"add {_named(axes)}", spread) if is_short else Mend(_named(axes), spread, _constant_along(axes))


def _sums(shape: Shape, target: Shape) -> Iterator[tuple[Shape, bool]]:
    """Yields the axes of an array over which a sum has another shape, and whether it must keep them."""
    for count in range(1, len(shape) + 1):
        for axes in combinations(range(len(shape)), count):
            if tuple(size for axis, size in enumerate(shape) if axis not in axes) == target:
                yield axes, False
            elif tuple(1 if axis in axes else size for axis, size in enumerate(shape)) == target:
                yield axes, True
                return  # more axes of length 1 change nothing


def _sum(gradient: Array, axes: Shape, target: Shape) -> Array:
    """Returns the sum over axes in the shape of the leaf, which may keep them."""
    return np.asarray(gradient.sum(axis=axes)).reshape(target)


def _spread(gradient: Array, axes: Shape, target: Shape) -> Array:
    """Returns an array of this shape that is constant along the axes and whose sum over them is the gradient."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(target))
    count = np.prod([target[axis] for axis in axes])
    return np.broadcast_to(gradient.reshape(kept) / count, target).copy()


def _constant_along(axes: Shape) -> Structure:
    def project(x: Array, d: Array) -> Array:
        del x
        return np.broadcast_to(d.mean(axis=axes, keepdims=True), d.shape).copy()

    return Structure(f"constant along {_named(axes)}", project, lambda _: True)


def _named(axes: Shape) -> str:
    return f"ax{'is' if len(axes) == 1 else 'es'} {' and '.join(map(str, axes))}"


def _sentence(context: Context, name: str, mend: Mend) -> str | None:
    """Returns what is wrong with the shape of a gradient, if this makes it right; else None."""
    given: list[Shape] = []

    def apply(gradient: Any) -> Array:
        given.append(np.shape(gradient))
        return mend.apply(np.asarray(gradient, np.float64))

    derivation = context.try_derivation(context.at, [name], _with_gradient(context.differentiated, name, apply))
    if derivation is None:
        return None
    outcome = context.outcome(name, Derivations(derivation), structure=mend.along)
    if outcome.verdict is not Verdict.PASS or outcome.cause is not Cause.AGREES or not outcome.measured.size:
        return None
    words = RIGHT if mend.along is None else SUMMED
    shape = context.checkable.leaves[name].shape
    return words.format(name, given[0], shape, mend.words, outcome.measured.relative_error)


def _with_gradient(checkable: Checkable, name: str, apply: Callable[[Any], Array]) -> Checkable:
    """Returns the same code, with another gradient of one leaf."""

    def change(backward: Backward) -> Backward:
        def with_other(*douts: Any) -> dict[str, Any]:
            gradients = backward(*douts)
            return {**gradients, name: apply(gradients[name])}

        return with_other

    return with_backward(checkable, change)
