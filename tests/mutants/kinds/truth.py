"""Derives the error of every kind independently: the distance of its gradient from the derivative of its forward pass.

A kind is run with the four checks replaced by functions that return an error instead of a report. The derivative is a
difference quotient of eighth order of each element: its truncation error is below 1e-12 for steps of 1e-3 and elements
of order 1. It shares no code with the checker. Kinds whose error it does not show (at a kink, at the third call, in
half precision) have a function of their own.
"""

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

from mutants.kinds import Kind

WEIGHTS = (4 / 5, -1 / 5, 4 / 105, -1 / 280)  # of (f(x + k h) - f(x - k h)) / h for k = 1, 2, 3, 4
MOST = 400  # the most elements of a leaf that are differentiated
Slots = dict[str, Any]  # arrays by name, which are changed in place


def error(kind: Kind, seed: int) -> float:
    """Returns the largest relative error of a leaf, by norm; infinite if a gradient is missing."""
    if kind.true is not None:
        return float(kind.true(seed))
    measuring = Measuring(seed, kind.step)
    scope = kind.run.__globals__
    checks = {name: getattr(measuring, name) for name in ("check", "check_layer", "check_function", "check_network")}
    with patch.dict(scope, {name: check for name, check in checks.items() if name in scope}), np.errstate(all="ignore"):
        return float(kind.run(seed))  # type: ignore[arg-type]


def derivative(f: Callable[[], float], array: Any, step: float) -> Any:
    """Returns the derivative of f with respect to each element of an array that it reads; nan for untried elements."""
    slopes = np.full(array.size, np.nan)
    flat = array.reshape(-1)
    if not np.shares_memory(flat, array) and array.size:
        raise ValueError("an array that is not contiguous cannot be moved element by element")
    for i in np.unique(np.linspace(0, array.size - 1, min(MOST, array.size)).astype(int)):
        old, total = flat[i], 0.0
        h = step * max(abs(float(old)), 0.1)
        for k, weight in enumerate(WEIGHTS, 1):
            for sign in (1, -1):
                flat[i] = old + sign * k * h
                total += sign * weight * f()
        flat[i] = old
        slopes[i] = total / h
    return slopes.reshape(array.shape)


def relative(claimed: Any, true: Any) -> float:
    """Returns |claimed - true| / |true| by norm; infinite for another shape, for nan and for None."""
    if claimed is None or np.shape(claimed) != np.shape(true):
        return 0.0 if claimed is None and not np.any(np.abs(true) > 1e-9) else np.inf
    tried = ~np.isnan(true)
    gap, norm = np.linalg.norm((np.asarray(claimed, np.float64) - true)[tried]), np.linalg.norm(true[tried])
    if not np.isfinite(gap):
        return np.inf
    return float(gap / norm) if norm > 1e-12 else float(np.inf if gap > 1e-6 else 0.0)


def packed(result: Any) -> Any:
    """Returns all float outputs of a forward pass as one flat array."""
    parts = [np.asarray(leaf) for leaf in jax.tree.leaves(_plain(result))]
    return np.concatenate(
        [part.ravel().astype(np.float64) for part in parts if part.dtype.kind == "f"] or [np.zeros(0)]
    )


def _plain(result: Any) -> Any:
    if isinstance(result, tuple | list):
        return [_plain(part) for part in result]
    if isinstance(result, dict):
        return {key: _plain(part) for key, part in result.items()}
    if hasattr(result, "__dataclass_fields__"):
        return [_plain(getattr(result, name)) for name in result.__dataclass_fields__]
    return result


class Measuring:
    """Replaces the four checks by methods that return the error of a gradient."""

    def __init__(self, seed: int, step: float) -> None:
        self.rng, self.step = np.random.default_rng([seed, 77]), step

    def check(self, thing: Any, *inputs: Any, **options: Any) -> float:
        if hasattr(thing, "loss") and hasattr(thing, "gradient"):
            return self.check_network(thing, *inputs)
        if isinstance(thing, tuple) or hasattr(thing, "backward"):
            return self.check_layer(thing, *inputs)
        if any(type(value).__module__.startswith("torch") for value in inputs):
            return self._torch(thing, *inputs)
        return self.check_function(thing, *inputs, **options)

    def check_network(self, network: Any, x: Any, t: Any, **_: Any) -> float:
        net = copy.deepcopy(network)
        gradient = dict(leaves_of(copy.deepcopy(network).gradient(x, t)))
        return max(
            relative(gradient.get(name), derivative(lambda: float(net.loss(x, t)), array, self.step))
            for name, array in leaves_of(net.params)
        )

    def check_layer(self, layer: Any, *inputs: Any, **_: Any) -> float:
        inputs = tuple(self.rng.normal(size=x) if _is_shape(x) else copy.deepcopy(x) for x in inputs)
        return self._pair(layer, inputs) if isinstance(layer, tuple) else self._layer(copy.deepcopy(layer), inputs)

    def check_function(self, f: Any, *args: Any, gradient: Any = None, **_: Any) -> float:
        with jax.enable_x64(True):
            arrays, tree = jax.tree.flatten(args)
            arrays = [np.array(leaf) if _is_float(leaf) else leaf for leaf in arrays]
            places = [i for i, leaf in enumerate(arrays) if _is_float(leaf)]

            def filled(floats: Any) -> list[Any]:
                return [floats.get(i, leaf) for i, leaf in enumerate(arrays)]

            traced = jax.jit(lambda floats: _plain(f(*jax.tree.unflatten(tree, filled(floats)))))

            def called() -> Any:
                if gradient is None:
                    return traced({i: jnp.asarray(arrays[i]) for i in places})
                return f(*jax.tree.unflatten(tree, filled({i: np.array(arrays[i]) for i in places})))

            first = packed(called())
            y = called()
            is_scalar = hasattr(y, "shape") and np.shape(y) == ()
            dout = np.ones(1) if is_scalar or np.isscalar(y) else self.rng.normal(size=first.shape)
            claimed = self._by_jax(f, tree, arrays, dout) if gradient is None else self._by(gradient, f, args, y, dout)
            errors = []
            for leaf, got in zip(arrays, [*claimed, *[None] * len(arrays)], strict=False):
                if _is_float(leaf):
                    errors.append(relative(got, derivative(lambda: float(packed(called()) @ dout), leaf, self.step)))
            return max(errors)

    def _by_jax(self, f: Any, tree: Any, arrays: list[Any], dout: Any) -> list[Any]:
        places = [i for i, leaf in enumerate(arrays) if _is_float(leaf)]

        def total(floats: list[Any]) -> Any:
            filled = list(arrays)
            for place, leaf in zip(places, floats, strict=True):
                filled[place] = leaf
            out = [jnp.ravel(leaf) for leaf in jax.tree.leaves(_plain(f(*jax.tree.unflatten(tree, filled))))]
            return jnp.concatenate([leaf for leaf in out if jnp.issubdtype(leaf.dtype, jnp.floating)]) @ jnp.asarray(
                dout
            )

        found: list[Any] = [None] * len(arrays)
        for place, g in zip(places, jax.grad(total)([jnp.asarray(arrays[i]) for i in places]), strict=True):
            found[place] = g
        return found

    def _by(self, gradient: Any, f: Any, args: Any, y: Any, dout: Any) -> list[Any]:
        names = gradient.__code__.co_varnames[: gradient.__code__.co_argcount]
        above = (self._shaped(y, dout),) if "dout" in names else ()
        got = gradient(*copy.deepcopy(args), *above)
        if isinstance(got, dict) and not isinstance(args[0], dict):
            takes = f.__code__.co_varnames[: len(args)]
            return [got.get(name) for name in takes]
        return jax.tree.leaves(got, is_leaf=lambda leaf: leaf is None)

    def _pair(self, pair: Any, inputs: Any) -> float:
        forward, backward = pair
        *y, cache = forward(*copy.deepcopy(inputs))
        dout = self.rng.normal(size=packed(y).shape)
        got = backward(*[self._shaped(part, piece) for part, piece in _split(y, dout)], cache)
        got = got if isinstance(got, tuple | list) else (got,)
        errors = []
        for x, g in zip(inputs, [*got, *[None] * len(inputs)], strict=False):
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                errors.append(
                    relative(g, derivative(lambda: float(packed(forward(*inputs)[:-1]) @ dout), x, self.step))
                )
        return max(errors)

    def _layer(self, layer: Any, inputs: Any) -> float:
        held = {id(array) for _, array in arrays_in(layer)}
        y = layer.forward(*copy.deepcopy(inputs))
        parts = y if isinstance(y, tuple) else (y,)
        held_after = dict(arrays_in(layer))
        dout = self.rng.normal(size=packed(y).shape)
        got = layer.backward(*[self._shaped(part, piece) for part, piece in _split(parts, dout)])
        got = got if isinstance(got, tuple | list) else (got,)
        claims = {
            name: array.copy() for name, array in arrays_in(layer) if name not in held_after or "d" in name.lower()
        }
        got = [None if g is None else np.array(g) for g in got]

        def total() -> float:
            return float(packed(layer.forward(*inputs)) @ dout)

        errors = [0.0]
        for x, g in zip(inputs, [*got, *[None] * len(inputs)], strict=False):
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                errors.append(relative(g, derivative(total, x, self.step)))
        for name, array in held_after.items():
            if id(array) in held or array.base is None:
                true = derivative(total, array, self.step) if array.flags.c_contiguous else None
                if true is not None and np.any(np.abs(true) > 1e-9):
                    errors.append(relative(stored_gradient(name, claims), true))
        return max(errors)

    def _shaped(self, y: Any, dout: Any) -> Any:
        return np.asarray(dout, np.asarray(y).dtype).reshape(np.shape(y)) if not isinstance(y, tuple) else dout

    def _torch(self, thing: Any, *inputs: Any) -> float:
        import torch

        inputs = tuple(x.detach().clone() for x in inputs)
        module = getattr(thing, "parameters", None)
        leaves = [x for x in inputs if x.is_floating_point()] + (list(module()) if module else [])
        for leaf in leaves:
            leaf.requires_grad_(True)
        y = thing(*inputs)
        dout = torch.as_tensor(self.rng.normal(size=tuple(y.shape)), dtype=y.dtype)
        got = torch.autograd.grad((y * dout).sum(), leaves, allow_unused=True)
        errors = []
        for leaf, g in zip(leaves, got, strict=True):
            array = leaf.detach().numpy()

            def total() -> float:
                with torch.no_grad():
                    return float((thing(*inputs) * dout).sum())

            errors.append(relative(None if g is None else g.numpy(), derivative(total, array, self.step)))
        return max(errors)


def leaves_of(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the float arrays of dicts, lists and tuples, each by its path."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, tuple | list) else ()
    for key, part in pairs:
        if isinstance(part, np.ndarray) and part.dtype.kind == "f":
            yield f"{name}.{key}", part
        else:
            yield from leaves_of(part, f"{name}.{key}")


def arrays_in(thing: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Yields the float arrays among the attributes of an object and of those that it holds."""
    for key, part in vars(thing).items():
        if isinstance(part, np.ndarray) and part.dtype.kind == "f":
            yield f"{name}.{key}", part
        elif isinstance(part, dict | list | tuple):
            yield from leaves_of(part, f"{name}.{key}")
            for place, inner in enumerate(part if isinstance(part, list | tuple) else part.values()):
                if hasattr(inner, "__dict__") and depth and not callable(inner):
                    yield from arrays_in(inner, f"{name}.{key}.{place}", depth - 1)
        elif hasattr(part, "__dict__") and depth and not isinstance(part, type | SimpleNamespace):
            yield from arrays_in(part, f"{name}.{key}", depth - 1)


def stored_gradient(name: str, claims: dict[str, Any]) -> Any:
    """Returns the stored gradient of a parameter, found by its common names."""
    above, _, last = name.rpartition(".")
    for form in (f"d{last}", f"grad_{last}", f"g{last}", f"{last}_grad"):
        if f"{above}.{form}" in claims:
            return claims[f"{above}.{form}"]
    return claims.get(name.replace(".params.", ".grads.")) if ".params." in name else None


def _split(parts: Any, dout: Any) -> Iterator[tuple[Any, Any]]:
    place = 0
    for part in parts:
        yield part, dout[place : place + np.size(part)]
        place += np.size(part)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
