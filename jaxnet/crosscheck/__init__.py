"""The cross-check: is a hand-written gradient right, how sure, who is to blame, where, and why."""

from collections.abc import Callable
from typing import Any

from jaxnet.checks import check_counts, check_positive
from jaxnet.crosscheck.examine import judge
from jaxnet.crosscheck.inspect import (
    Checkable,
    CheckableFunction,
    CheckableLayer,
    CheckableNetwork,
    CheckablePair,
    JaxReference,
    SubjectError,
    as_pair,
    surroundings_kept,
)
from jaxnet.crosscheck.inspect.drawing import drawn
from jaxnet.crosscheck.inspect.foreign import refuse_foreign
from jaxnet.crosscheck.inspect.torch_function import CheckableTorch, forward_of, is_torch
from jaxnet.crosscheck.inspect.torch_layer import is_tensor_layer, layer_in_numpy
from jaxnet.crosscheck.inspect.torch_tensors import arrays_from, in_numpy
from jaxnet.crosscheck.layerwise import judge_layers
from jaxnet.crosscheck.report import Gap, InconclusiveWarning, Leaf, Report

SOME = 64  # elements of a network's leaf that are derived one by one: its layers, alone, show more

__all__ = [
    "Gap",
    "InconclusiveWarning",
    "Leaf",
    "Report",
    "SubjectError",
    "check",
    "check_function",
    "check_layer",
    "check_network",
    "inspected",
]


@surroundings_kept()
def check_layer(
    layer: Any,
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    name: str | None = None,
) -> Report:
    """A hand-written layer, against differences of its own forward pass, and against JAX where a reference is given.

    Args:
        layer: An object with `forward(*inputs)` and `backward(dout)`, whose parameters are the float arrays with a
            `d`-name beside them after `backward` (`W` and `dW`, or `grad_W`, `gW`, `dw` and the like), or listed in
            `params` and `grads`, or stand in an object's `data` or `value` with its `grad`; a loss's `backward()` may
            take nothing. Or a pair of functions, `forward(*inputs) -> (y, cache)` and `backward(dout, cache)`.
        inputs: What `forward` takes. A tuple of whole numbers is a shape, and good inputs of it are drawn. `backward`
            returns a gradient for each input, or for the first of those that are floats, or a dict of them by name;
            integers have none.
        reference: The same function in JAX, of (params, *inputs) where the layer has parameters, else of (*inputs).
        seed: Of the inputs that are drawn, the directions probed and the gradient that comes from above.
        resolution: The relative error of a leaf's gradient, by norm, that the difference quotients must be able to
            see; where they are blunter, the verdict is INCONCLUSIVE. The square root of the leaf's unit roundoff
            unless given (1.5e-8, or 3.5e-4 in float32): half of the digits, which good inputs easily allow.
        name: What the report calls it; its class unless given.

    Raises:
        SubjectError: What was brought has no such methods, or raises, or holds no floats; the message says whose fault.
        ValueError: `seed` or `resolution` is out of range.
    """
    _check_options(seed, resolution)
    return _judged(_layer(layer, inputs, seed), reference, seed, resolution, name)


@surroundings_kept()
def check_network(
    network: Any,
    x: Any,
    t: Any,
    *,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    name: str | None = None,
) -> Report:
    """A whole network, and where it has a sequence of layers, each of them alone.

    Args:
        network: An object with `params`, a tree of dicts, `loss(x, t)` and `gradient(x, t)` in the same tree; it is
            copied, never changed. A flag of `loss` such as `train_flg` is set: `gradient` belongs to training.
        x: Samples, (N, ...).
        t: Labels, as the network takes them; one for each sample.
        reference: The same loss in JAX, of (params, x, t).
        seed: Of the directions probed.
        resolution: As for `check_layer`.
        name: What the report calls it; its class unless given.

    Raises:
        SubjectError, ValueError: As for `check_layer`.
    """
    _check_options(seed, resolution)
    return _judged(CheckableNetwork(network, x, t), reference, seed, resolution, name)


@surroundings_kept()
def check_function(
    f: Callable[..., Any],
    *args: Any,
    gradient: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    name: str | None = None,
) -> Report:
    """A function of arrays or trees of arrays, in NumPy or JAX, and a gradient of it.

    Args:
        f: Returns an array, or several.
        args: What it is called with. Integers have no gradient.
        gradient: Of (*args) where f is a scalar, of (*args, dout) else, and of (dout, *args) where its first argument
            alone is none of f's by name, or is called `dout`, `g` or `ct`; it returns a gradient for each argument.
            JAX's own unless given, so that this checks what a `jax.custom_vjp` says.
        reference: The same function in JAX, of (*args).
        seed: Of the directions probed and of the gradient that comes from above.
        resolution: As for `check_layer`.
        name: What the report calls it; the function's unless given.

    Raises:
        SubjectError, ValueError: As for `check_layer`.
    """
    _check_options(seed, resolution)
    return _judged(_function(f, args, gradient, seed), reference, seed, resolution, name)


@surroundings_kept()
def check(
    thing: Any,
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    name: str | None = None,
) -> Report:
    """`check_network`, `check_layer` or `check_function`, the first that fits; arguments and errors as theirs."""
    _check_options(seed, resolution)
    return _judged(inspected(thing, *inputs, seed=seed), reference, seed, resolution, name)


def inspected(thing: Any, *inputs: Any, seed: int = 0) -> Checkable:
    """What is to be checked, told by its looks: a network, a layer, a pair of functions, or a function.

    Args:
        thing: As for `check_network`, `check_layer` or `check_function`, the first that fits.
        inputs: What it is called with.
        seed: Of the inputs that are drawn where only shapes are given.

    Raises:
        SubjectError: None of them fits, or it cannot be run.
        ValueError: `seed` is out of range.
    """
    _check_options(seed, None)
    if not isinstance(thing, tuple | list) and is_torch(thing, inputs):
        return _layer(thing, inputs, seed) if is_tensor_layer(thing) else _function(thing, inputs, None, seed)
    is_layer = hasattr(thing, "backward")  # which may keep its last `loss` beside its `params`
    if hasattr(thing, "loss") and (hasattr(thing, "gradient") or (hasattr(thing, "params") and not is_layer)):
        return CheckableNetwork(thing, *inputs)
    if isinstance(thing, tuple | list) or is_layer:
        return _layer(thing, inputs, seed)
    return _function(thing, drawn(thing, inputs, None, seed), None, seed)


def _function(
    f: Callable[..., Any], args: tuple[Any, ...], gradient: Callable[..., Any] | None, seed: int
) -> CheckableFunction | CheckableTorch:
    if is_torch(f, args):
        if gradient is None:
            return CheckableTorch(f, drawn(forward_of(f), args, None, seed))
        f, gradient, args = in_numpy(f), in_numpy(gradient), arrays_from(args)
    elif gradient is None:
        refuse_foreign(f, args)
    return CheckableFunction(f, args, gradient)


def _check_options(seed: int, resolution: float | None) -> None:
    check_counts(0, seed=seed)
    if resolution is not None:
        check_positive("resolution", resolution)


def _layer(layer: Any, inputs: tuple[Any, ...], seed: int) -> CheckableLayer | CheckablePair | CheckableTorch:
    pair = as_pair(layer)
    if is_torch(layer, inputs):
        if pair is not None:
            pair, inputs = (in_numpy(pair[0]), in_numpy(pair[1])), arrays_from(inputs)
        elif is_tensor_layer(layer):
            layer, inputs = layer_in_numpy(layer, inputs)
        else:
            return CheckableTorch(layer, drawn(forward_of(layer), inputs, None, seed))
    inputs = drawn(pair[0] if pair else getattr(layer, "forward", None), inputs, layer, seed)
    return CheckableLayer(layer, inputs) if pair is None else CheckablePair(pair, inputs)


def _judged(
    hand: Checkable, reference: Callable[..., Any] | None, seed: int, resolution: float | None, name: str | None
) -> Report:
    theirs = JaxReference(reference, hand) if reference is not None else None
    if not isinstance(hand, CheckableNetwork):
        return judge(name or hand.name, hand, theirs, seed=seed, resolution=resolution)
    whole = judge(name or hand.name, hand, theirs, seed=seed, resolution=resolution, elements=SOME)
    return judge_layers(whole, hand, seed=seed, resolution=resolution)
