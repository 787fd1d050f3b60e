"""The cross-check: is a hand-written gradient right, how sure, who is to blame, where, and why."""

from collections.abc import Callable
from typing import Any

from jaxnet.checks import check_counts, check_positive
from jaxnet.crosscheck.examine import Options, examine
from jaxnet.crosscheck.inspect import (
    Checkable,
    CheckableLayer,
    CheckableNetwork,
    CheckablePair,
    JaxReference,
    SubjectError,
    as_pair,
    brought_layer,
    brought_network,
    brought_pair,
    function_subject,
    surroundings_kept,
)
from jaxnet.crosscheck.inspect.drawing import drawn
from jaxnet.crosscheck.layerwise import examine_layers
from jaxnet.crosscheck.report import Gap, InconclusiveWarning, Leaf, Report

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
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    constants: tuple[str, ...] = (),
    max_seconds: float | None = None,
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
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _judged(_layer(layer, inputs, seed), reference, options, name)


@surroundings_kept()
def check_network(
    network: Any,
    x: Any,
    t: Any,
    *,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    constants: tuple[str, ...] = (),
    max_seconds: float | None = None,
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
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _judged(brought_network(network, x, t, constants), reference, options, name)


@surroundings_kept()
def check_function(
    f: Callable[..., Any],
    *args: Any,
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    constants: tuple[str, ...] = (),
    max_seconds: float | None = None,
    name: str | None = None,
) -> Report:
    """A function of arrays or trees of arrays, in NumPy or JAX, and a gradient of it.

    Args:
        f: Returns an array, or several.
        args: What it is called with. Integers have no gradient.
        gradient: Of (*args) where f is a scalar, of (*args, dout) else, and of (dout, *args) where its first argument
            alone is none of f's by name, or is called `dout`, `g` or `ct`; it returns a gradient for each argument.
            JAX's own unless given, so that this checks what a `jax.custom_vjp` says.
        takes_dout: Whether `gradient` takes what comes from above; told by its signature unless given.
        reference: The same function in JAX, of (*args).
        seed: Of the directions probed and of the gradient that comes from above.
        resolution: As for `check_layer`.
        name: What the report calls it; the function's unless given.

    Raises:
        SubjectError, ValueError: As for `check_layer`.
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _judged(function_subject(f, args, gradient, takes_dout), reference, options, name)


@surroundings_kept()
def check(
    thing: Any,
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    seed: int = 0,
    resolution: float | None = None,
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    constants: tuple[str, ...] = (),
    max_seconds: float | None = None,
    name: str | None = None,
) -> Report:
    """`check_network`, `check_layer` or `check_function`, the first that fits; arguments and errors as theirs."""
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _judged(inspected(thing, *inputs, seed=seed), reference, options, name)


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
    _options(seed)
    is_layer = hasattr(thing, "backward")  # which may keep its last `loss` beside its `params`
    if hasattr(thing, "loss") and (hasattr(thing, "gradient") or (hasattr(thing, "params") and not is_layer)):
        return brought_network(thing, *inputs)
    if isinstance(thing, tuple | list) or is_layer:
        return _layer(thing, inputs, seed)
    return function_subject(thing, drawn(thing, inputs, None, seed))


def _options(
    seed: int,
    resolution: float | None = None,
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    max_seconds: float | None = None,
) -> Options:
    check_counts(0, seed=seed)
    for option, value in {"resolution": resolution, "accuracy": accuracy, "max_seconds": max_seconds}.items():
        if value is not None:
            check_positive(option, value)
    if expected is not None and not callable(expected):
        raise SubjectError(f"expected: a {type(expected).__name__}, expected a function of the same arguments")
    return Options(seed, resolution, accuracy or 0.0, expected, max_seconds)


def _layer(layer: Any, inputs: tuple[Any, ...], seed: int) -> CheckableLayer | CheckablePair:
    pair = as_pair(layer)
    inputs = drawn(pair[0] if pair else getattr(layer, "forward", None), inputs, layer, seed)
    return brought_layer(layer, inputs) if pair is None else brought_pair(pair, inputs)


def _judged(
    checkable: Checkable, reference: Callable[..., Any] | None, options: Options, name: str | None
) -> Report:
    theirs = JaxReference(reference, checkable) if reference is not None else None
    if not isinstance(checkable, CheckableNetwork):
        return examine(name or checkable.name, checkable, theirs, options)
    return examine_layers(name or checkable.name, checkable, theirs, options)
