"""The cross-check: is a gradient right, how sure is that, which computation is wrong, where, and why.

What is brought is inspected, measured, and decided upon, and the verdict is explained; each has a folder or file of
its own, which can be read and tested alone.
"""

from collections.abc import Callable, Collection
from typing import Any

from jaxnet.crosscheck.context import Options
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.examine import examine
from jaxnet.crosscheck.inspect import (
    Checkable,
    CheckableNetwork,
    SubjectError,
    brought,
    brought_network,
    surroundings_kept,
)
from jaxnet.crosscheck.layerwise import examine_layers
from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.report import InconclusiveWarning, Leaf, Report
from jaxnet.validation import check_counts, check_positive

__all__ = [
    "Cause",
    "Gap",
    "InconclusiveWarning",
    "Leaf",
    "Report",
    "SubjectError",
    "Verdict",
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
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks a hand-written layer against differences of its own forward pass, and against JAX where it is given.

    Args:
        layer: An object with `forward(*inputs)` and `backward(dout)`, whose parameters are the float arrays with a
            `d`-name beside them after `backward` (`W` and `dW`, or `grad_W`, `gW`, `dw` and the like), or listed in
            `params` and `grads`, or stand in an object's `data` or `value` with its `grad`; a loss's `backward()` may
            take nothing. Or a pair of functions, `forward(*inputs) -> (y, cache)` and `backward(dout, cache)`.
        inputs: What `forward` takes. A tuple of whole numbers is a shape, and good inputs of it are drawn. `backward`
            returns a gradient for each input, or for the first of those that are floats, or a dict of them by name;
            integers have none.
        reference: The same function in JAX, of (params, *inputs) where the layer has parameters, else of (*inputs).
        expected: Another function, of the same arguments as a reference, whose derivative the gradient is meant to be,
            as for a straight-through estimator.
        constants: The names of arrays that move the output and have no gradient, and need none.
        accuracy: The relative error that is meant, as of an iterative solver's adjoint; it is allowed.
        resolution: The relative error of a leaf's gradient, by norm, that the difference quotients must be able to
            see; where they are blunter, the verdict is INCONCLUSIVE. Defaults to half the digits of the dtype in
            which the forward pass computes: 1.5e-8 in float64, 3.5e-4 in float32.
        max_seconds: What is not judged after so long is INCONCLUSIVE. Defaults to no limit.
        seed: Draws inputs, directions and the gradient from above, by generators that no user's own seed meets.
        name: What the report calls it. Defaults to the name of its class.

    Returns:
        A report: `report.verdict`, `str(report)`, `report.raise_if_failed()`.

    Raises:
        SubjectError: If what was brought has no such methods, or raises, or holds no floats.
        ValueError: If an option is out of range.

    Examples:
        >>> import numpy as np
        >>> def backward(dout, y):
        ...     return dout * (1 - y**2)
        >>> check_layer((lambda x: (np.tanh(x), np.tanh(x)), backward), (5, 4)).verdict
        <Verdict.PASS: 'PASS'>
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _report(brought.layer(layer, inputs, seed, constants), reference, options, name)


@surroundings_kept()
def check_network(
    network: Any,
    x: Any,
    t: Any,
    *,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks a whole network, and, where it has a sequence of layers, each of them alone.

    Args:
        network: An object with `params`, a tree of dicts, `loss(x, t)` and `gradient(x, t)` in the same tree; it is
            copied, never changed. A flag of `loss` such as `train_flg` is set: `gradient` belongs to training.
        x: Samples, (N, ...).
        t: Labels, as the network takes them; one for each sample.
        reference: The same loss in JAX, of (params, x, t).
        expected: As for `check_layer`, as are all that follow.
        constants: See `check_layer`.
        accuracy: See `check_layer`.
        resolution: See `check_layer`.
        max_seconds: See `check_layer`.
        seed: See `check_layer`.
        name: See `check_layer`.

    Returns:
        A report of the whole, with one of each layer in `report.layers`.

    Raises:
        SubjectError: As for `check_layer`.
        ValueError: As for `check_layer`.
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _report(brought_network(network, x, t, constants), reference, options, name)


@surroundings_kept()
def check_function(
    f: Callable[..., Any],
    *args: Any,
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks a function of arrays or trees of arrays, in NumPy, JAX or PyTorch, and a gradient of it.

    Args:
        f: Returns an array, or several in any nesting.
        args: What it is called with. Integers, keys and strings have no gradient.
        gradient: A function of (*args) where f is a scalar, of (*args, dout) else, and of (dout, *args) where its first
            argument alone is none of f's by name, or is called `dout`, `g` or `ct`; it returns a gradient for each
            argument. Defaults to what JAX or PyTorch derive, so that a `jax.custom_vjp` or a
            `torch.autograd.Function` is checked.
        takes_dout: Whether `gradient` takes the gradient from above. Defaults to what its signature says.
        reference: The same function in JAX, of (*args).
        expected: As for `check_layer`, as are all that follow.
        constants: See `check_layer`.
        accuracy: See `check_layer`.
        resolution: See `check_layer`.
        max_seconds: See `check_layer`.
        seed: See `check_layer`.
        name: See `check_layer`. Defaults to the name of the function.

    Returns:
        A report.

    Raises:
        SubjectError: If it cannot be run or derived; the message is JAX's or PyTorch's reason.
        ValueError: If an option is out of range.
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    checkable = brought.function(f, args, seed, gradient, takes_dout, constants)
    return _report(checkable, reference, options, name)


@surroundings_kept()
def check(
    thing: Any,
    *inputs: Any,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Runs `check_network`, `check_layer` or `check_function`, the first that fits; arguments and errors are theirs."""
    options = _options(seed, resolution, accuracy, expected, max_seconds)
    return _report(brought.anything(thing, inputs, seed, constants), reference, options, name)


def inspected(thing: Any, *inputs: Any, seed: int = 0) -> Checkable:
    """Returns what is to be checked, told by its looks: a network, a layer, a pair of functions, or a function.

    Args:
        thing: As for `check_network`, `check_layer` or `check_function`, the first that fits.
        inputs: What it is called with.
        seed: Draws inputs where only shapes are given.

    Raises:
        SubjectError: If none of them fits, or it cannot be run.
        ValueError: If `seed` is out of range.
    """
    _options(seed)
    return brought.anything(thing, inputs, seed)


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


def _in_jax(reference: Callable[..., Any], checkable: Checkable) -> Checkable:
    from jaxnet.crosscheck.inspect.jax_function import JaxReference  # JAX is loaded where it is needed

    return JaxReference(reference, checkable)


def _report(checkable: Checkable, reference: Callable[..., Any] | None, options: Options, name: str | None) -> Report:
    theirs = _in_jax(reference, checkable) if reference is not None else None
    run = examine_layers if isinstance(checkable, CheckableNetwork) else examine
    return run(name or checkable.name, checkable, theirs, options)  # type: ignore[arg-type]
