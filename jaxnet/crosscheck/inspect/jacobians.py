"""Takes gradients in the forms of SciPy's solvers: sparse matrices, linear operators, and whole Jacobians.

A Jacobian J of an output of shape S with respect to an input of shape T has the shape S + T. What is checked is its
product with an upstream gradient, which covers every row.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxnet.crosscheck.inspect.copying import duplicate
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.signatures import from_above, input_names
from jaxnet.crosscheck.inspect.trees import Array, is_array, is_float

NOTE = "gradient returns the Jacobian of {}, so its product with random upstream gradients is checked"
Gradient = Callable[..., Any]


def is_sparse(value: Any) -> bool:
    """Returns whether this is a sparse matrix or a linear operator, by what it can do."""
    if is_array(value):
        return False
    return callable(getattr(value, "toarray", None)) or (callable(getattr(value, "matmat", None)) and _is_2d(value))


def dense(value: Any) -> Any:
    """Returns a sparse matrix or a linear operator as an array, anything else as it is."""
    if not is_sparse(value):
        return value
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value.matmat(np.eye(value.shape[1])))


def as_product(f: Callable[..., Any], args: tuple[Any, ...], gradient: Gradient) -> tuple[Gradient, bool, str] | None:
    """Returns a gradient that returns arrays of the arguments' shapes, whether it takes dout, and a note.

    Args:
        f: The function.
        args: Its arguments.
        gradient: Its gradient.

    Returns:
        None if the gradient needs no other form, or is not known to need one.
    """
    try:
        y, parts, is_tuple = _both(f, args, gradient)
    except Exception:  # raised by the user's code, which the check itself describes
        return None
    inputs = [arg for arg in args if is_float(arg)]
    if len(inputs) != len(args) or len(parts) > len(inputs) or (is_tuple and len(parts) != len(inputs)):
        return None
    arrays = [np.asarray(dense(part)) for part in parts]
    if y.size > 1 or y.ndim:
        pairs = zip(arrays, inputs, strict=False)
        if not all(a.shape == y.shape + np.shape(x) != np.shape(x) for a, x in pairs):
            return None
        name = str(getattr(f, "__name__", type(f).__name__)).replace("<lambda>", "f")
        return _Product(gradient, is_tuple=is_tuple), True, NOTE.format(name)
    if any(map(is_sparse, parts)) and all(a.size == x.size for a, x in zip(arrays, inputs, strict=False)):
        return _Shaped(gradient, is_tuple=is_tuple), False, ""
    return None


def _both(f: Callable[..., Any], args: tuple[Any, ...], gradient: Gradient) -> tuple[Array, list[Any], bool]:
    """Returns the output, and what the gradient returns if it takes no upstream gradient."""
    f, gradient, args = duplicate((f, gradient, args))  # a callable object may keep state
    restart_generators()
    result = f(*duplicate(args))
    if not is_float(result) and not isinstance(result, float):
        raise TypeError("an output that is no array of floats")
    y, names = np.asarray(result), input_names(f, len(args))
    if from_above(f, gradient, names, outputs=1, scalar=y.ndim == 0).taken:
        raise TypeError("a gradient that takes an upstream gradient")
    restart_generators()
    found = gradient(*duplicate(args))
    is_tuple = isinstance(found, tuple)
    return y, list(found) if is_tuple else [found], is_tuple


class _Wrapped:
    """A gradient in another form. An object, so that a gradient which is one itself is copied with it."""

    def __init__(self, gradient: Gradient, *, is_tuple: bool) -> None:
        self.func, self.is_tuple = gradient, is_tuple

    def parts(self, args: Sequence[Any]) -> Sequence[Any]:
        """Returns what the gradient returns for each argument."""
        result = self.func(*args)
        return result if self.is_tuple else (result,)

    def as_returned(self, parts: list[Any]) -> Any:
        """Returns the parts in the form in which the gradient returns its own."""
        return tuple(parts) if self.is_tuple else parts[0]


class _Product(_Wrapped):
    """The product of an upstream gradient with the Jacobian."""

    def __call__(self, *args: Any) -> Any:
        *inputs, dout = args
        above = np.asarray(dout)
        return self.as_returned([np.tensordot(above, dense(part), above.ndim) for part in self.parts(inputs)])


class _Shaped(_Wrapped):
    """A gradient whose sparse parts, which always have two axes, have the shapes of the arguments."""

    def __call__(self, *args: Any) -> Any:
        pairs = zip(self.parts(args), args, strict=False)
        return self.as_returned([np.reshape(dense(p), np.shape(x)) if is_sparse(p) else p for p, x in pairs])


def _is_2d(value: Any) -> bool:
    return isinstance(getattr(value, "shape", None), tuple) and len(value.shape) == 2
