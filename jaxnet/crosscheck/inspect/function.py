"""Functions of arrays: with a gradient written beside them, or with JAX's own, a `jax.custom_vjp` included."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck.inspect.checkable import (
    TWO_FUNCTIONS,
    Array,
    Checkable,
    Instance,
    Leaves,
    SubjectError,
    as_arrays,
    as_tuple,
    blaming,
    claimed,
    expect_call,
    input_names,
    is_float,
    positional,
)

FROM_ABOVE = ("dout", "dy", "dz", "dh", "g", "ct", "cotangent", "upstream", "grad_output", "grad_out")
NOT_TRACEABLE = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)


class CheckableFunction(Checkable):
    """f(*args), of arrays or trees of arrays, and what claims to be its gradient; JAX's own where none is given.

    `gradient` is called with the arguments, and where it takes one more, with the gradient from above: as the last,
    or as the first where that alone is no name of f's, or is called `dout`, `g`, `ct` or the like; or by keyword. It
    returns a gradient for each argument, or for the first of those with floats.
    """

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], gradient: Callable[..., Any] | None) -> None:
        if not callable(f):
            raise SubjectError(f"f: a {type(f).__name__}, expected a function")
        if gradient is not None and not callable(gradient):
            raise SubjectError(f"gradient: a {type(gradient).__name__}, expected a function of the same arguments")
        self.f, self.gradient = f, gradient
        self.name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
        self.names = input_names(f, len(args))
        self.jax = gradient is None or any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(args))
        self.args = {
            name: jax.tree.map(lambda leaf, name=name: as_arrays((leaf,), [name])[0], arg)
            for name, arg in zip(self.names, args, strict=True)
        }
        self.leaves = {name: leaf for name, leaf in _named(self.args).items() if is_float(leaf)}
        if not self.leaves:
            raise SubjectError(f"{self.name}: no argument of floats, nothing to check; give it arrays of floats")
        opened = self.open(self.leaves)
        with blaming(self.name):
            y = opened.forward()
        if gradient is not None:
            self._find_dout(gradient, opened.outputs.unpack(np.ones_like(y)), y)
            if not self.takes_dout and y.size > 1 and self._has_value_first(opened):
                raise SubjectError(f"{self.name}: returns a number and more, expected one output; {TWO_FUNCTIONS}")
        returned = self.leaves
        with self.trying("jax.vjp" if gradient is None else "gradient"):
            try:
                returned = opened.backward(np.ones_like(y))
            except NOT_TRACEABLE as error:
                hint = f"; where it returns its value and its gradient, {TWO_FUNCTIONS}"
                raise SubjectError(
                    f"{self.name}: JAX cannot trace it ({type(error).__name__}); give a gradient, or use jax.numpy"
                    + (hint if self._has_value_first(opened) else "")
                ) from error
        self.leaves = {name: leaf for name, leaf in self.leaves.items() if name in returned}

    def _find_dout(self, gradient: Callable[..., Any], douts: tuple[Array, ...], y: Array) -> None:
        """Whether the gradient takes one from above, and where: the one argument that f does not have, told by name."""
        takes = [p.name for p in positional(gradient)]
        required = [p.name for p in keywords(gradient) if p.default is p.empty]
        self.dout_named = required[0] if len(required) == 1 else ""
        self.takes_dout = bool(self.dout_named) or (len(takes) > len(self.names) if takes else y.ndim > 0)
        self.dout_first = bool(takes) and takes[0] in FROM_ABOVE
        others = [name for name in takes if name not in self.names]
        if len(takes) == len(self.names) + 1 and len(others) == 1 and others[0] in (takes[0], takes[-1]):
            self.dout_first = others[0] == takes[0]
        args = ", ".join(self.names)
        count = len(self.names) + (len(douts) if self.takes_dout and not self.dout_named else 0)
        named = dict.fromkeys(filter(None, [self.dout_named]))
        expected = f"gradient({args}, dout), or gradient({args}) where f is a scalar"
        expect_call(gradient, count, "gradient", expected, **named)

    def _has_value_first(self, opened: Instance) -> bool:
        shapes = opened.outputs.shapes
        return shapes is not None and shapes[0] == ()

    def open(self, leaves: Leaves) -> Instance:
        args = self.arguments(leaves)
        if self.jax:
            with jax.enable_x64(True):
                args = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, args)
        backward = self._by_jax if self.gradient is None else self._by_hand
        named = _named(dict(zip(self.names, args, strict=True)))
        handed = {name: leaf for name, leaf in named.items() if isinstance(leaf, np.ndarray)}
        return Instance(self._f, lambda *douts: backward(args, douts), args, handed)

    def arguments(self, leaves: Leaves) -> tuple[Any, ...]:
        return tuple(_refill(self.args, leaves).values())

    def _f(self, *args: Any) -> Any:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, self.f(*args)) if self.jax else self.f(*args)

    def _by_jax(self, args: tuple[Any, ...], douts: tuple[Array, ...]) -> dict[str, Any]:
        named = dict(zip(self.names, args, strict=True))
        floats = {name: leaf for name, leaf in _named(named).items() if name in self.leaves}
        with jax.enable_x64(True):
            y, vjp = jax.vjp(lambda leaves: pack(self.f(*_refill(named, leaves).values())), floats)
            dout = np.concatenate([d.ravel() for d in douts]).reshape(y.shape).astype(y.dtype)
            return {name: np.asarray(gradient) for name, gradient in vjp(jnp.asarray(dout))[0].items()}

    def _by_hand(self, args: tuple[Any, ...], douts: tuple[Array, ...]) -> dict[str, Any]:
        assert self.gradient is not None
        with jax.enable_x64(True):
            above = douts if self.takes_dout else ()
            if self.takes_dout and self.dout_named:
                result = self.gradient(*args, **{self.dout_named: douts[0] if len(douts) == 1 else douts})
            else:
                result = self.gradient(*above, *args) if self.dout_first else self.gradient(*args, *above)
        if isinstance(result, Mapping) and not isinstance(args[0], Mapping):
            result = claimed(result, args, self.names, "gradient")
            return self._as_numpy(_named(result))
        returned = (result,) if len(args) == 1 and not _is_tuple_of_one(result) else as_tuple(result)
        if len(returned) > len(args):
            raise SubjectError(f"gradient: returned {len(returned)} gradients for {len(args)} arguments")
        with_floats = [n for n, arg in zip(self.names, args, strict=True) if any(map(_is_floats, jax.tree.leaves(arg)))]
        names = self.names if len(returned) == len(args) else with_floats
        return self._as_numpy(_named(dict(zip(names, returned, strict=False))))

    def _as_numpy(self, gradients: dict[str, Any]) -> dict[str, Any]:
        if self.jax:
            return {name: None if g is None else np.asarray(g) for name, g in gradients.items()}
        return gradients


class JaxReference(Checkable):
    """A JAX function of the arguments of another subject, differentiated by JAX."""

    def __init__(self, function: Callable[..., Any], like: Checkable) -> None:
        self.name = getattr(function, "__name__", "reference")
        self.leaves, self.arguments = like.leaves, like.arguments  # type: ignore[method-assign]
        self._forward = jax.jit(lambda leaves: pack(function(*like.arguments(leaves))))
        self._backward = jax.jit(lambda leaves, dout: jax.vjp(self._forward, leaves)[1](dout)[0])

    def forward(self, leaves: Leaves) -> Array:
        with jax.enable_x64(True), blaming(f"the reference {self.name}"):
            return np.asarray(self._forward(leaves))

    def backward(self, leaves: Leaves, dout: Array) -> Leaves:
        with jax.enable_x64(True), blaming(f"the reference {self.name}"):
            return {name: np.asarray(g) for name, g in self._backward(leaves, dout).items()}


def keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that only a keyword fills; none where the signature cannot be read."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def pack(result: Any) -> jax.Array:
    """`Outputs.pack` for JAX: one array as it is, several laid end to end."""
    if not isinstance(result, tuple | list):
        return jnp.asarray(result)
    return jnp.concatenate([jnp.ravel(part) for part in result if _is_floats(part)])


def _named(args: dict[str, Any]) -> dict[str, Any]:
    """The leaves of all arguments: x for an array, params.Affine1.W for one in a tree; a None counts as one."""
    named = {}
    for name, tree in args.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)[0]:
            named[".".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)])] = leaf
    return named


def _refill(args: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    """The arguments with other leaves; what has no gradient is copied."""
    filled = {}
    for name, tree in args.items():
        flat, structure = jax.tree_util.tree_flatten_with_path(tree)
        names = [".".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)]) for path, _ in flat]
        other = [leaves[n] if n in leaves else copy.deepcopy(leaf) for n, (_, leaf) in zip(names, flat, strict=True)]
        filled[name] = jax.tree_util.tree_unflatten(structure, other)
    return filled


def _is_floats(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _is_tuple_of_one(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 1
