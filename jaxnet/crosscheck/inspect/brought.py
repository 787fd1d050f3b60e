"""Tells what was brought by its looks, and makes it a Checkable."""

from collections.abc import Callable, Collection
from typing import Any

from jaxnet.crosscheck.inspect.checkable import Checkable, SubjectError
from jaxnet.crosscheck.inspect.drawing import drawn
from jaxnet.crosscheck.inspect.foreign import refuse_foreign
from jaxnet.crosscheck.inspect.function import function_subject
from jaxnet.crosscheck.inspect.jax_loaded import single_precision
from jaxnet.crosscheck.inspect.layer import brought_layer
from jaxnet.crosscheck.inspect.network import brought_network
from jaxnet.crosscheck.inspect.pair import as_pair, brought_pair
from jaxnet.crosscheck.inspect.single_precision import SinglePrecision, has_no_double
from jaxnet.crosscheck.inspect.torch_function import CheckableTorch, forward_of, is_torch
from jaxnet.crosscheck.inspect.torch_layer import is_tensor_layer, layer_in_numpy
from jaxnet.crosscheck.inspect.torch_tensors import arrays_from, in_numpy


def anything(thing: Any, inputs: tuple[Any, ...], seed: int, constants: Collection[str] = ()) -> Checkable:
    """Returns a network, a layer, a pair of functions or a function as a Checkable, whichever it looks like.

    Args:
        thing: What was brought.
        inputs: What it is called with; a tuple of whole numbers is a shape, and an array of it is drawn.
        seed: The seed of the inputs that are drawn.
        constants: The names of arrays that have no gradient and need none.

    Raises:
        SubjectError: If nothing fits, or it cannot be run.
    """
    is_several = isinstance(thing, tuple | list)
    if not is_several and is_torch(thing, inputs) and not is_tensor_layer(thing):
        return function(thing, inputs, seed, constants=constants)
    is_layer = hasattr(thing, "backward")  # which may keep its last `loss` beside its `params`
    if hasattr(thing, "loss") and (hasattr(thing, "gradient") or (hasattr(thing, "params") and not is_layer)):
        return _network(thing, inputs, constants)
    if is_several or is_layer:
        return layer(thing, inputs, seed, constants)
    return function(thing, inputs, seed, constants=constants)


def _network(thing: Any, inputs: tuple[Any, ...], constants: Collection[str]) -> Checkable:
    if len(inputs) != 2:
        raise SubjectError(f"{type(thing).__name__}: {len(inputs)} inputs, expected two for a network: samples, labels")
    return brought_network(thing, *inputs, constants)


def layer(thing: Any, inputs: tuple[Any, ...], seed: int, constants: Collection[str] = ()) -> Checkable:
    """Returns an object with both passes, or a pair of functions, as a Checkable; arguments as for `anything`."""
    pair = as_pair(thing)
    if is_torch(thing, inputs):
        if pair is not None:
            pair, inputs = (in_numpy(pair[0]), in_numpy(pair[1])), arrays_from(inputs)
        elif is_tensor_layer(thing):
            thing, inputs = layer_in_numpy(thing, inputs)
        else:
            return CheckableTorch(thing, drawn(forward_of(thing), inputs, None, seed))
    inputs = drawn(pair[0] if pair else getattr(thing, "forward", None), inputs, thing, seed)
    return brought_layer(thing, inputs, constants) if pair is None else brought_pair(pair, inputs, constants)


def function(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    seed: int,
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
    constants: Collection[str] = (),
) -> Checkable:
    """Returns a function as a Checkable; a gradient that is not brought is its framework's own.

    Args:
        f: The function.
        args: What it is called with.
        seed: The seed of the inputs that are drawn.
        gradient: The gradient, if it is written beside the function.
        takes_dout: Whether that takes the gradient from above; None to tell by its signature.
        constants: The names of arguments that have no gradient and need none.
    """
    if is_torch(f, args):
        if gradient is None:
            return CheckableTorch(f, drawn(forward_of(f), args, None, seed))
        f, gradient, args = in_numpy(f), in_numpy(gradient), arrays_from(args)
    elif gradient is None:
        refuse_foreign(f, args)
    args = drawn(f, args, None, seed)
    found = _in_either_precision(lambda: function_subject(f, args, gradient, takes_dout), args)
    found.constants = {*found.constants, *constants}
    return found


def _in_either_precision(make: Callable[[], Checkable], args: tuple[Any, ...]) -> Checkable:
    """Makes a checkable in JAX's 64-bit mode, or, where its code fails in that and is not brought float64, without."""
    try:
        found = make()
        if not found.fault or not has_no_double(args):
            return found
    except SubjectError:
        if not has_no_double(args):
            raise
    with single_precision():
        return SinglePrecision(make())
