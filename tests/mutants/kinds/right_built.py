"""Rebuilds a right kind with one element of an array changed, and evaluates it or its gradients.

A kind is built again for every value, so that arrays still share memory and generators start from their seed.
"""

# ruff: noqa: NPY002, the global generators are seeded again for every value

import random
import sys

import jax
import numpy as np

CHECKS = ("check", "check_function", "check_layer", "check_network")
GRADIENT_NAMES = ("d{}", "d_{}", "grad_{}", "{}_grad", "g{}")


class Caught(Exception):
    """Raised with the arguments of a check, in place of the check."""


def arguments_of_check(kind, seed):
    """Returns the check's name, the code that is checked, its inputs and its options."""

    def catch(name):
        def caught(thing, *inputs, **options):
            raise Caught(name, thing, list(inputs), options)

        return caught

    scope = kind.run.__globals__
    before = {name: scope[name] for name in CHECKS if name in scope}
    scope.update({name: catch(name) for name in before})
    np.random.seed(5)
    random.seed(5)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(5)
    try:
        kind.run(seed)
    except Caught as caught:
        return caught.args
    finally:
        scope.update(before)
    raise AssertionError(f"{kind.name} calls no check")


def arrays_of(thing, depth=0, known=None):
    """Yields (name, array, gradient or None) for each array that a layer holds."""
    known = set() if known is None else known
    if depth > 4 or id(thing) in known:
        return
    known.add(id(thing))
    names = {n: getattr(thing, n) for n in attributes(thing)}
    params = getattr(thing, "params", getattr(thing, "parameters", None))
    grads = getattr(thing, "grads", getattr(thing, "gradients", None))
    keys = params.keys() if isinstance(params, dict) else range(len(params)) if isinstance(params, list) else ()
    for key in keys:
        if isinstance(params[key], np.ndarray):
            same = [other for other in keys if params[other] is params[key]]  # its gradient is the sum over all uses
            each = [entry(grads, other) for other in same] if grads else [None]
            yield f"params[{key!r}]", params[key], None if each[0] is None else sum(map(np.asarray, each))
    for name, array in names.items():
        stored = [names[form.format(name)] for form in GRADIENT_NAMES if form.format(name) in names]
        if isinstance(array, np.ndarray):
            yield name, array, stored[0] if stored else None
        for place, part in enumerate(array if isinstance(array, list | tuple) else [array]):
            if hasattr(part, "forward") or (hasattr(part, "grad") and hasattr(part, "data")):
                yield from ((f"{name}{place}.{n}", a, g) for n, a, g in arrays_of(part, depth + 1, known))
    if hasattr(thing, "grad") and isinstance(getattr(thing, "data", None), np.ndarray):
        yield "value of the holder", thing.data, thing.grad


def entry(grads, key):
    return next((grads[k] for k in (key, f"d{key}") if isinstance(grads, list) or k in grads), None)


def attributes(thing):
    """Returns the names of an object's attributes, including slots and properties."""
    classes = type(thing).__mro__
    slots = [n for cls in classes for n in getattr(cls, "__slots__", ()) if hasattr(thing, n)]
    properties = [n for cls in classes for n, value in vars(cls).items() if isinstance(value, property)]
    return [*getattr(thing, "__dict__", {}), *slots, *properties]


def flat(result):
    parts = [np.asarray(part) for part in jax.tree.leaves(result) if np.asarray(part).dtype.kind not in "iub"]
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])


def is_float(value):
    dtype = getattr(value, "dtype", None)
    return dtype is not None and "float" in str(dtype)


class Built:
    """A kind that can be evaluated with one element changed."""

    def __init__(self, kind, seed):
        self.kind, self.seed = kind, seed
        self.pure = arguments_of_check(kind, seed)  # a function is built once, because JAX compiles every new one
        self.fast = None
        y = self.run(None)
        self.dout = np.random.default_rng([seed, 77]).normal(size=y.shape) if y.size > 1 else np.ones(y.shape)

    def shaped(self, result):
        """Returns the upstream gradient in the form of the output."""
        parts, tree = jax.tree.flatten(result)
        start, shaped = 0, []
        for part in map(np.asarray, parts):
            dtype = part.dtype if is_float(part) else np.float64
            shaped.append(self.dout[start : start + part.size].reshape(part.shape).astype(dtype))
            start += part.size
        return jax.tree.unflatten(tree, shaped)

    def run(self, move, *, backward=False):
        """Returns the packed output with an element (leaf, index) changed by a step, or the gradients by leaf."""
        style, thing, inputs, options = self.pure
        if style != "check_function":
            style, thing, inputs, options = arguments_of_check(self.kind, self.seed)
        pair = isinstance(thing, tuple)
        if style == "check_function" or (style == "check" and not hasattr(thing, "backward") and not pair):
            return self.function(thing, inputs, options, move, backward)
        inputs = [np.array(x) if isinstance(x, np.ndarray | jax.Array) else x for x in inputs]
        leaves = {f"#{i}": (x, None) for i, x in enumerate(inputs) if is_float(x)}
        if not pair:
            leaves |= {n: (a, g) for n, a, g in arrays_of(thing)}
        if style == "check_network":
            leaves = {n: (a, None) for n, a in zip(*paths(thing.params), strict=True) if is_float(a)}
        if move:
            shift(leaves[move[0]][0], *move[1:])
        if style == "check_network":
            if not backward:
                return flat(thing.loss(*inputs))
            return {
                n: (a, np.asarray(g))
                for (n, (a, _)), g in zip(leaves.items(), paths(thing.gradient(*inputs))[1], strict=True)
            }
        if pair:
            *y, cache = thing[0](*inputs)
            y = y[0] if len(y) == 1 else tuple(y)
            douts = self.shaped(y) if backward else None
            back = thing[1]
            arguments = (*(douts if isinstance(douts, tuple) else (douts,)), cache)
        else:
            y = thing.forward(*inputs)
            y = thing.output if y is None else y
            douts = self.shaped(y) if backward else None
            takes = thing.backward.__code__.co_argcount - 1
            back = thing.backward
            arguments = (douts if isinstance(douts, tuple) else (douts,)) if takes else ()
        if not backward:
            return flat(y)
        result = back(*arguments)
        result = thing.dinputs if result is None and hasattr(thing, "dinputs") else result
        result = result if isinstance(result, tuple | list | dict) else (result,)
        floats = [n for n in leaves if n.startswith("#")]
        names = dict(zip(floats, result.values() if isinstance(result, dict) else result, strict=False))
        returned = {n: (leaves[n][0], np.asarray(g)) for n, g in names.items() if g is not None}
        own = {} if pair else {n: (a, np.asarray(g)) for n, a, g in arrays_of(thing) if g is not None and n in leaves}
        return returned | own

    def compiled(self, f, gradient):
        """Returns the function, compiled if it is a JAX function that can be compiled."""
        if gradient is not None:
            return f
        if self.fast is None:
            self.fast = jax.jit(f)
            try:
                self.fast(*self.pure[2])
            except Exception:  # it branches on an argument, or does not take arrays
                self.fast = f
        return self.fast

    def function(self, f, args, options, move, backward):
        gradient, surrogate = options.get("gradient"), options.get("expected")
        with jax.enable_x64(True):
            parts, tree = jax.tree.flatten(args)
            float64 = any(getattr(p, "dtype", None) == np.float64 for p in parts)
            names = {f"#{i}": i for i, p in enumerate(parts) if is_float(p) or isinstance(p, float)}
            for n in names.values():
                parts[n] = np.array(parts[n], np.float64 if float64 else None)
            if move:
                shift(parts[names[move[0]]], *move[1:])
            whole = jax.tree.unflatten(tree, parts)
            if not backward:
                return flat(self.compiled(surrogate or f, gradient)(*whole))
            if gradient is None:
                kinds = [p if i in names.values() else None for i, p in enumerate(parts)]

                def of(floats):
                    mixed = [floats[i] if k is not None else parts[i] for i, k in enumerate(kinds)]
                    return f(*jax.tree.unflatten(tree, mixed))

                y, pull = jax.vjp(of, [None if k is None else jax.numpy.asarray(k) for k in kinds])
                returned = pull(jax.tree.map(lambda a, b: jax.numpy.asarray(b, a.dtype), y, self.shaped(y)))[0]
                return {n: (parts[i], np.asarray(returned[i])) for n, i in names.items()}
            y = f(*whole)
            scalar = np.ndim(y) == 0 and not isinstance(y, tuple | dict)
            try:
                result = gradient(*whole) if scalar else gradient(*whole, self.shaped(y))
            except TypeError:
                result = gradient(*whole, self.shaped(y))
            single = not isinstance(result, tuple | list | dict)
            returned = (
                [result] if single else list(result.values()) if isinstance(result, dict) else jax.tree.leaves(result)
            )
            order = sorted(names)[options.get("argument", 0) :] if single else list(names)
            return {n: (parts[names[n]], np.asarray(g)) for n, g in zip(order, returned, strict=False) if g is not None}


def paths(tree, prefix=""):
    """Returns the names and the arrays of a tree."""
    if isinstance(tree, dict):
        both = [paths(tree[key], f"{prefix}{key}.") for key in sorted(tree)]
        return [n for names, _ in both for n in names], [a for _, arrays in both for a in arrays]
    return [prefix], [tree]


def shift(array, index, step):
    array[index] = array[index] + step
