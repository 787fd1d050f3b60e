"""Checks whether a gradient is right, how certain that is, and which computation is wrong, where, and why.

A check inspects the code that is passed in, measures its gradients, decides on verdicts, and explains them. Each of
these steps has a folder or a file of its own, which can be read and tested alone.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from jaxnet.common.validation import check_counts, check_positive
from jaxnet.crosscheck.applied_functions import tensors_for
from jaxnet.crosscheck.context import Options
from jaxnet.crosscheck.decide import Cause, Verdict
from jaxnet.crosscheck.examine import examine
from jaxnet.crosscheck.gradient_line import lines_of_wrong_gradients
from jaxnet.crosscheck.input_files import read_inputs
from jaxnet.crosscheck.inspect import dispatch
from jaxnet.crosscheck.inspect.checkable import Checkable
from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.function import name_of
from jaxnet.crosscheck.inspect.global_state import preserve_global_state
from jaxnet.crosscheck.inspect.network import CheckableNetwork, inspect_network
from jaxnet.crosscheck.keyword_inputs import gradient_with_positional_inputs
from jaxnet.crosscheck.layerwise import examine_layers
from jaxnet.crosscheck.many_points import Shapes, check_shapes
from jaxnet.crosscheck.measure.derivation import Gap
from jaxnet.crosscheck.measure.structures import structures_of
from jaxnet.crosscheck.report import InconclusiveWarning, Leaf, Report
from jaxnet.crosscheck.wrong_calls import explaining_wrong_calls

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
    "inspect_network",
    "inspected",
]


@explaining_wrong_calls
@preserve_global_state()
def check_layer(
    layer: Any,
    *inputs: Any,
    named: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    order: int = 1,
    transforms: Collection[str] | None = None,
    structure: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks a hand-written layer against difference quotients of its forward pass, and against JAX if it is given.

    The parameters of a layer are its float arrays that have a gradient beside them after `backward`: `W` with `dW`, or
    `grad_W`, `gW`, `dw` and the like; the arrays listed in `params` and `grads`; and an object's `data` or `value` with
    its `grad`.

    Args:
        layer: An object with `forward(*inputs)` and `backward(dout)`, where the `backward()` of a loss may take no
            argument; or a pair of functions, `forward(*inputs) -> (y, cache)` and `backward(dout, cache)`.
        inputs: The arguments of `forward`. A tuple of integers is a shape, for which suitable values are drawn; a
            `pathlib.Path` is a file of arrays, `.npz`, `.npy` or `.pt`, whose names are those of the arguments.
            `backward` returns a gradient for each input, only for the first of the float inputs, or a dict of gradients
            by name. Integer inputs have no gradient.
        named: Further inputs by the names of the parameters of `forward`. Defaults to none.
        reference: The same function in JAX, of (params, *inputs) if the layer has parameters, otherwise of (*inputs).
        expected: Another function, with the arguments of a reference, whose derivative the gradient is meant to be, as
            for a straight-through estimator. Defaults to the forward pass itself.
        constants: The names of arrays that affect the output and need no gradient, as in the report.
        accuracy: The relative error allowed by design, such as that of an iterative solver. Defaults to none.
        resolution: The relative error of a leaf's gradient, by norm, that the difference quotients must be able to
            resolve. If they cannot, the verdict is INCONCLUSIVE. Defaults to half the digits of the dtype in which the
            forward pass computes: 1.5e-8 in float64, 3.5e-4 in float32.
        max_seconds: The time after which leaves that are not judged yet become INCONCLUSIVE. Defaults to no limit.
        order: The highest derivative to check, for code that a framework differentiates: with 2, the gradient's own
            derivative is compared with differences of the gradient.
        transforms: The names of transformations under which the code must return the same output and gradients: for
            JAX "jit", "vmap", "per-sample", "checkpoint" and "scan", for PyTorch "vmap", "per-sample", "batched-dout",
            "checkpoint" and "compile". Defaults to the first three of JAX and the first two of PyTorch, under which
            the code need not run.
        structure: The structures that arrays keep as they move, by name, so that their gradients are judged only along
            such directions: "symmetric", "positive definite", "skew-symmetric", "lower triangular", "upper
            triangular", "diagonal", "simplex", "unit rows" or "rotation", or a function project(x, d) that returns the
            part of a direction d that is tangent at x.
        seed: The seed of random inputs, directions and upstream gradients, which never equal those of a user's seed.
        name: The title of the report. Defaults to the name of the layer's class.

    Returns:
        The report; see `Report.verdict`, `str(report)` and `Report.raise_if_failed()`.

    Raises:
        SubjectError: If the layer has no such methods or float arrays, raises an error, or lacks a constant's name.
        ValueError: If an option is out of range.

    Examples:
        >>> import numpy as np
        >>> def forward(x):
        ...     y = np.tanh(x)
        ...     return y, y
        >>> def backward(dout, y):
        ...     return dout * (1 - y**2)
        >>> check_layer((forward, backward), (5, 4)).verdict
        <Verdict.PASS: 'PASS'>
        >>> report = check_layer((forward, lambda dout, y: dout * (1 - y)), (5, 4))
        >>> report.verdict
        <Verdict.FAIL: 'FAIL'>
        >>> report.leaves[0].diagnosis
        'it is dout times 1 - y, but should be dout times (1 - y**2)'
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds, order, transforms)
    bound, inputs = read_inputs(layer, inputs, named)
    checkable = dispatch.in_any_style(dispatch.layer_to_checkable, bound, inputs, seed)
    return _at_lines(_report(checkable, constants, reference, options, name, structure), layer)


@explaining_wrong_calls
@preserve_global_state()
def check_network(
    network: Any,
    x: Any,
    t: Any,
    *further: Any,
    named: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    order: int = 1,
    transforms: Collection[str] | None = None,
    structure: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks a whole network, and, if it has a sequence of layers, each layer on its own.

    Args:
        network: An object with `params`, a tree of dicts, `loss(x, t)`, and `gradient(x, t)`, which returns the same
            tree. The network is copied and never changed. If `loss` has a flag such as `train_flg`, it is set,
            because `gradient` belongs to training.
        x: The samples, (N, ...).
        t: The labels, one for each sample, in the form that the network takes.
        further: Further arguments of `loss`, and of `gradient` if it takes them: the strength of a weight decay.
        named: The same by the names of the parameters of `loss`. Defaults to none.
        reference: The same loss in JAX, which takes (params, x, t, *further). Defaults to no reference.
        expected, constants, accuracy, resolution, max_seconds, order, transforms, structure, seed: See `check_layer`.
        name: The title of the report. Defaults to the name of the network's class.

    Returns:
        The report of the whole network, with those of the layers in `Report.layers`.

    Raises:
        SubjectError: If the network has no such methods, raises an error, or has no float arrays.
        ValueError: If an option is out of range.

    Examples:
        >>> import numpy as np
        >>> class Linear:
        ...     def __init__(self):
        ...         self.params = {"W": np.ones((3, 2))}
        ...     def loss(self, x, t):
        ...         return 0.5 * ((x @ self.params["W"] - t) ** 2).sum()
        ...     def gradient(self, x, t):
        ...         return {"W": x.T @ (x @ self.params["W"] - t)}
        >>> rng = np.random.default_rng(0)
        >>> check_network(Linear(), rng.normal(size=(5, 3)), rng.normal(size=(5, 2))).verdict
        <Verdict.PASS: 'PASS'>
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds, order, transforms)
    bound, inputs = read_inputs(network, (x, t, *further), named)
    checkable = dispatch.in_any_style(dispatch.network_to_checkable, bound, inputs, seed)
    return _at_lines(_report(checkable, constants, reference, options, name, structure), network)


@explaining_wrong_calls
@preserve_global_state()
def check_function(
    f: Callable[..., Any],
    *args: Any,
    named: Mapping[str, Any] | None = None,
    gradient: Callable[..., Any] | None = None,
    takes_dout: bool | None = None,
    mode: Literal["reverse", "forward"] = "reverse",
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    order: int = 1,
    transforms: Collection[str] | None = None,
    structure: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Checks the gradient of a function of arrays or trees of arrays in NumPy, JAX or PyTorch.

    Args:
        f: The function. It returns an array, or several in any nesting.
        args: The arguments of `f`. Integers, random keys and strings have no gradient.
        named: Further arguments by the names of the parameters of `f`. Defaults to none.
        gradient: A function that returns a gradient for each argument. It takes (*args) if `f` returns a scalar,
            otherwise (*args, dout), or (dout, *args) if only its first argument is not an argument of `f`, or is
            called `dout`, `g` or `ct`. It may return the whole Jacobian instead, of shape (*output, *argument), or a
            sparse matrix. Defaults to the derivative by the framework of `f`, which checks a `jax.custom_vjp` or a
            `torch.autograd.Function`.
        takes_dout: Whether `gradient` takes the upstream gradient. Defaults to what its signature shows.
        mode: The mode of JAX whose derivative is checked, if there is no `gradient`. "forward" serves for code
            without a reverse mode, such as `jax.lax.while_loop`; it takes one product for each element of `args`. By
            default, reverse mode is checked, and forward mode is compared with it where there is one.
        reference: The same function in JAX, which takes (*args). Defaults to no reference.
        expected, constants, accuracy, resolution, max_seconds, order, transforms, structure, seed: See `check_layer`.
        name: The title of the report. Defaults to the name of the function.

    Returns:
        The report.

    Raises:
        SubjectError: If the function cannot be run or differentiated; the message is the reason of JAX or PyTorch.
        ValueError: If an option is out of range.

    Examples:
        >>> import numpy as np
        >>> check_function(np.sin, np.linspace(0, 1, 5), gradient=lambda x, dout: dout * np.cos(x)).verdict
        <Verdict.PASS: 'PASS'>
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds, order, transforms)
    bound, args = read_inputs(f, args, named)
    by_position = gradient_with_positional_inputs(gradient, f, named)
    if mode not in ("reverse", "forward"):
        raise ValueError(f"mode: {mode!r}, expected 'reverse' or 'forward'")
    if takes_dout not in (None, True, False):
        raise ValueError(f"takes_dout: {takes_dout!r}, expected True, False or None")
    if mode == "forward" and gradient is not None:
        raise SubjectError("mode: 'forward' beside gradient=, expected one of them: your gradient has no forward mode")
    with dispatch.naming_missing_inputs(bound, args):
        if gradient is None:
            args = tensors_for(bound, args, seed)
        if mode == "forward":
            checkable = dispatch.forward_mode_to_checkable(bound, args, seed)
        else:
            checkable = dispatch.function_to_checkable(bound, args, seed, by_position, takes_dout)
    return _at_lines(_report(checkable, constants, reference, options, name, structure), f, gradient)


@explaining_wrong_calls
@preserve_global_state()
def check(
    thing: Any,
    *inputs: Any,
    named: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    constants: Collection[str] = (),
    accuracy: float | None = None,
    resolution: float | None = None,
    max_seconds: float | None = None,
    order: int = 1,
    transforms: Collection[str] | None = None,
    structure: Mapping[str, Any] | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Runs the first of `check_network`, `check_layer` and `check_function` that fits its arguments.

    Args:
        thing: A network, a layer, a pair of functions, or a function.
        inputs: The arguments that it is called with.
        named: Further ones by the names of the parameters of its forward pass. Defaults to none.
        shapes: The inputs of several checks, in place of `inputs`: a list with a shape for each, or with a tuple of
            shapes and values; or a function of a random generator that returns inputs, which is called eight times.
        reference, expected, constants, accuracy, resolution, max_seconds: See the check that fits.
        order, transforms, structure, seed: See the check that fits.
        name: The title of the report. Defaults to the name of the class or the function.

    Returns:
        The report.

    Raises:
        SubjectError: If no check fits, or the code cannot be run.
        ValueError: If an option is out of range.

    Examples:
        >>> import numpy as np
        >>> square = lambda x: (x**2, x), lambda dout, x: 2 * x * dout
        >>> check(square, np.linspace(1, 2, 5)).verdict
        <Verdict.PASS: 'PASS'>
        >>> check(square, shapes=[(5, 4), (1, 4), (3,), (2, 3, 4)]).verdict
        <Verdict.PASS: 'PASS'>
    """
    options = _options(seed, resolution, accuracy, expected, max_seconds, order, transforms)

    def at(inputs: tuple[Any, ...], seed: int) -> Report:
        bound, inputs = read_inputs(thing, inputs, named)
        checkable = dispatch.to_checkable(bound, tensors_for(bound, inputs, seed), seed)
        report = _report(checkable, constants, reference, replace(options, seed=seed), name, structure)
        return _at_lines(report, thing)

    if shapes is None:
        return at(inputs, seed)
    if inputs or named:
        raise SubjectError("shapes: given beside inputs, expected one of them: put the inputs into the list of shapes")
    return check_shapes(name or name_of(thing[0] if isinstance(thing, tuple) and thing else thing), shapes, seed, at)


def inspected(thing: Any, *inputs: Any, seed: int = 0) -> Checkable:
    """Returns the form of a network, a layer, a pair of functions or a function that the checks work with.

    Args:
        thing: An argument of `check`.
        inputs: The arguments that it is called with.
        seed: The seed of the inputs for which only a shape is given.

    Returns:
        The checkable: its leaves by name, and its forward and backward pass as functions of them.

    Raises:
        SubjectError: If no check fits, or the code cannot be run.
        ValueError: If `seed` is out of range.

    Examples:
        >>> import numpy as np
        >>> square = lambda x: (x**2, x), lambda dout, x: 2 * x * dout
        >>> inspected(square, np.ones(3)).leaves
        {'x': array([1., 1., 1.])}
    """
    _options(seed)
    return dispatch.to_checkable(thing, inputs, seed)


def _options(
    seed: int,
    resolution: float | None = None,
    accuracy: float | None = None,
    expected: Callable[..., Any] | None = None,
    max_seconds: float | None = None,
    order: int = 1,
    transforms: Collection[str] | None = None,
) -> Options:
    check_counts(0, seed=seed)
    check_counts(1, order=order)
    if max_seconds is not None:
        check_positive("max_seconds", max_seconds)
    for option, value in {"resolution": resolution, "accuracy": accuracy}.items():
        if value is not None:
            check_positive(option, value)
            if value >= 1:  # zeros would pass for every gradient
                raise ValueError(f"{option}: {value!r}, expected a relative error below 1, such as 1e-4")
    _expect_function("expected", expected)
    return Options(
        seed,
        resolution,
        accuracy or 0.0,
        expected,
        max_seconds,
        order=order,
        transforms=None if transforms is None else _names_in("transforms", transforms),
    )


def _report(
    checkable: Checkable,
    constants: Collection[str],
    reference: Callable[..., Any] | None,
    options: Options,
    name: str | None,
    structure: Mapping[str, Any] | None,
) -> Report:
    _expect_function("reference", reference)
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name: {name!r}, expected a string, the title of the report")
    dispatch.declare_constants(checkable, _names_in("constants", constants))
    dispatch.expect_transforms(checkable, options.transforms or ())
    options = replace(options, structure=structures_of(structure or {}, checkable.leaves))
    in_jax: Checkable | None = None
    if reference is not None:
        from jaxnet.crosscheck.inspect.jax_function import JaxReference  # a check of NumPy code does not load JAX

        in_jax = JaxReference(reference, checkable)
    run = examine_layers if isinstance(checkable, CheckableNetwork) else examine
    return run(name or checkable.name, checkable, in_jax, options)  # type: ignore[arg-type]


def _at_lines(report: Report, subject: Any, gradient: Callable[..., Any] | None = None) -> Report:
    """Returns a report with the lines of code that compute the wrong gradients."""
    return replace(report, lines=lines_of_wrong_gradients(report, subject, gradient))


def _expect_function(option: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise SubjectError(f"{option}: {kind_of(value)}, expected a function of the same arguments")


def _names_in(option: str, names: Collection[str]) -> tuple[str, ...]:
    """Returns the names that an option lists; a string is one name."""
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise SubjectError(f"{option}: {names!r}, expected a list of names, such as ['x']")
    return tuple(names)
