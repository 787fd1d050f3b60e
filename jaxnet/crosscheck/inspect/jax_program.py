"""Differentiates a JAX function of named leaves in every way that JAX has: reverse, forward, again, transformed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck.inspect.checkable import Checkable, Instance, PointValue, name_of_dout
from jaxnet.crosscheck.inspect.compiled import Compiled
from jaxnet.crosscheck.inspect.errors import SubjectError, kind_of
from jaxnet.crosscheck.inspect.global_state import restart_generators
from jaxnet.crosscheck.inspect.jax_errors import Origin, origin, whole_tracebacks
from jaxnet.crosscheck.inspect.optional_jax import double_precision
from jaxnet.crosscheck.inspect.outputs import flat_parts
from jaxnet.crosscheck.inspect.trees import Array, Leaves, is_complex, node_of

Program = Callable[[Mapping[str, Any]], jax.Array]  # from the leaves by name to the outputs, packed into one array
Pull = Callable[[Mapping[str, Any], jax.Array], Any]  # from the leaves and dout to the gradients
Derive = Callable[[Program], Pull]
Points = dict[str, Any]  # the leaves at several points, stacked
Transform = Callable[[Program, Derive, Points, jax.Array], Any]  # returns outputs and gradients at the points


class JaxProgram(Checkable):
    """A program of JAX, and the gradient that JAX derives for it.

    Attributes:
        program: The function of the leaves.
        derive: Returns the gradient of a program: by reverse mode, or by forward mode if there is no reverse mode.
    """

    derived_by = "JAX"
    transforms = ("jit", "vmap", "per-sample", "checkpoint", "scan")
    cheap_transforms = ("jit", "vmap", "per-sample")
    program: Program
    derive: Derive

    def set_program(self, program: Program, derive: Derive) -> None:
        """Sets the program and how its gradient is derived."""
        self.program, self.derive = program, derive
        self._forward, self._backward = Compiled(program), Compiled(derive(program))

    def open(self, leaves: Leaves) -> Instance:
        values = self._completed(leaves)
        names = list(values)

        def forward(*inputs: Array) -> Array:
            return np.asarray(self._forward(dict(zip(names, inputs, strict=True))))

        def backward(dout: Any) -> dict[str, Any]:
            return dict(self._backward(dict(zip(names, inputs, strict=True)), np.asarray(dout)))

        inputs = tuple(values.values())
        return Instance(forward, backward, inputs, dict(values))

    def value_under_differentiation(self, leaves: Leaves) -> Array:
        """Returns the output that differentiation computes, which should be that of the function."""

        def value(leaves: dict[str, Any]) -> jax.Array:
            if self.derive is vjp_of:
                return jax.vjp(self.program, leaves)[0]
            return jax.jvp(self.program, (leaves,), (leaves,))[0]

        compute = Compiled(value)
        return np.asarray(compute.plain(self._completed(leaves)))

    def pushforward(self, leaves: Leaves, tangents: Leaves) -> Array | None:
        values = self._completed(leaves)
        moves = {name: tangents.get(name, np.zeros_like(value)) for name, value in values.items()}
        try:
            with whole_tracebacks():
                return np.asarray(Compiled(_jvp_of(self.program)).plain(values, moves))
        except Exception as error:
            if "forward-mode" not in str(error) and origin(error) is Origin.RULE:
                raise
            return None  # a custom_vjp has no forward mode, nor have some operations of JAX

    def gradient_checkable(self, dout: Array) -> Checkable:
        return JaxGradient(self, dout)

    def partial_gradient(self, leaves: Leaves, dout: Array, names: Collection[str]) -> dict[str, Any] | None:
        if not self._has_rules:
            return None
        values = self._completed(leaves)
        chosen = {name: value for name, value in values.items() if name in names}
        pull = self.derive(lambda part: self.program(values | dict(part)))
        return dict(Compiled(pull).plain(chosen, np.asarray(dout)))

    def under(self, transform: str, points: Sequence[Leaves], dout: Array) -> list[PointValue]:
        completed = [self._completed(point) for point in points]
        stacked = {name: np.stack([point[name] for point in completed]) for name in self.leaves}
        douts = np.stack([np.asarray(dout)] * len(points))
        with double_precision():
            restart_generators()
            values = {name: jnp.asarray(value) for name, value in stacked.items()}
            if transform == "jit":  # which has compiled both already
                y, gradients = _one_by_one(self._forward.jitted, self._backward.jitted, values, jnp.asarray(douts))
            else:
                y, gradients = _at_once(TRANSFORMS[transform], self.program, self.derive)(values, jnp.asarray(douts))
        return [
            PointValue(np.asarray(y[i]), {name: np.asarray(g[i]) for name, g in gradients.items()})
            for i in range(len(points))
        ]

    @cached_property
    def _has_rules(self) -> bool:
        """Whether the program has a custom rule, which may depend on the leaves that are differentiated."""
        try:
            with double_precision():
                closed = jax.make_jaxpr(self.program)({name: jnp.asarray(leaf) for name, leaf in self.leaves.items()})
        except Exception:  # JAX cannot trace the whole program at once
            return True
        return "custom_vjp_call" in (text := str(closed)) or "custom_jvp_call" in text

    def _completed(self, leaves: Leaves) -> dict[str, Any]:
        return {name: leaves.get(name, leaf) for name, leaf in self.leaves.items()}


class JaxGradient(JaxProgram):
    """The gradient of a program as a program of its leaves and of `dout`, so that its own derivative can be checked.

    Args:
        of: The program.
        dout: An upstream gradient.
    """

    def __init__(self, of: JaxProgram, dout: Array) -> None:
        self.name, self.of = of.name, of
        above = name_of_dout(of.leaves)
        self.leaves = dict(of.leaves) | {above: np.asarray(dout)}
        self.gradient_of = () if of.gradient_of else tuple(of.leaves)
        pull = of.derive(of.program)

        def program(leaves: Mapping[str, Any]) -> jax.Array:
            gradients = pull({name: leaves[name] for name in of.leaves}, leaves[above])
            return jnp.concatenate([gradients[name].ravel() for name in of.leaves])

        self.set_program(program, of.derive)


def vjp_of(program: Callable[..., jax.Array]) -> Pull:
    """Returns the vector-Jacobian product of a program, which takes the leaves and `dout`."""

    def backward(leaves: Mapping[str, Any], dout: jax.Array) -> Any:
        y, pull = jax.vjp(program, leaves)
        return pull(dout.reshape(y.shape).astype(y.dtype))[0]

    return backward


def vjp_by_forward_mode(program: Program) -> Pull:
    """Returns the same product without reverse mode, from one Jacobian-vector product for each element of the leaves.

    It checks the forward mode of code that has no reverse mode, such as `jax.lax.while_loop`.
    """

    def backward(leaves: Mapping[str, Any], dout: jax.Array) -> Any:
        _, push = jax.linearize(program, dict(leaves))
        return {name: _pulled(push, leaves, name, dout) for name in leaves}

    return backward


def _pulled(push: Callable[..., Any], leaves: Mapping[str, Any], name: str, dout: jax.Array) -> jax.Array:
    zeros = {other: jnp.zeros_like(value) for other, value in leaves.items()}
    leaf = leaves[name]

    def along(basis: jax.Array) -> jax.Array:
        return jnp.vdot(dout, push(zeros | {name: basis.reshape(leaf.shape)}))

    return jax.vmap(along)(jnp.eye(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)


def _jvp_of(program: Program) -> Callable[..., jax.Array]:
    def push(leaves: Mapping[str, Any], tangents: Mapping[str, Any]) -> jax.Array:
        return jax.jvp(program, (dict(leaves),), (dict(tangents),))[1]

    return push


def _at_once(transform: Transform, program: Program, derive: Derive) -> Callable[..., Any]:
    """Returns a transformed program that is compiled if it can be: each operation alone takes as long to compile."""

    def run(points: Points, douts: jax.Array) -> Any:
        return transform(program, derive, points, douts)

    def compiled_or_plain(points: Points, douts: jax.Array) -> Any:
        try:
            return jax.jit(run)(points, douts)
        except Exception:  # it branches on values
            return run(points, douts)

    return compiled_or_plain


def _under_checkpoint(program: Program, derive: Derive, points: Points, douts: jax.Array) -> Any:
    f = jax.checkpoint(program)
    return _one_by_one(f, derive(f), points, douts)


def _under_vmap(program: Program, derive: Derive, points: Points, douts: jax.Array) -> Any:
    """Returns the gradients of a function of a batch, as in the training of a function of one sample."""

    def batched(points: Mapping[str, Any]) -> jax.Array:
        return jax.vmap(program)(dict(points))

    return batched(points), derive(batched)(points, douts)


def _per_sample(program: Program, derive: Derive, points: Points, douts: jax.Array) -> Any:
    """Returns the gradients of each sample, from a batch of them."""
    return jax.vmap(program)(points), jax.vmap(derive(program))(points, douts)


def _under_scan(program: Program, derive: Derive, points: Points, douts: jax.Array) -> Any:
    def run(points: Mapping[str, Any]) -> jax.Array:
        return jax.lax.scan(lambda carry, leaves: (carry, program(leaves)), None, dict(points))[1]

    return run(points), derive(run)(points, douts)


def _one_by_one(f: Program, pull: Pull, points: Points, douts: jax.Array) -> Any:
    at = [{name: stack[i] for name, stack in points.items()} for i in range(len(douts))]
    gradients = [pull(point, dout) for point, dout in zip(at, douts, strict=True)]
    return [f(point) for point in at], jax.tree.map(lambda *g: jnp.stack(g), *gradients)


TRANSFORMS: dict[str, Transform] = {
    "vmap": _under_vmap,
    "per-sample": _per_sample,
    "checkpoint": _under_checkpoint,
    "scan": _under_scan,
}


def packed(result: Any) -> jax.Array:
    """Returns the outputs of a JAX function as one array, as `Outputs.pack` does; a complex output as two floats.

    Raises:
        SubjectError: If no output is an array of numbers.
    """
    if node_of(result) is None:
        if result is None or not (hasattr(result, "dtype") or isinstance(result, int | float | complex)):
            raise SubjectError(f"forward: returned {kind_of(result)}, expected an array of floats")
        array = jnp.asarray(result)
        return _in_floats(array) if is_complex(array) else array
    parts = [jnp.asarray(leaf) for _, leaf in flat_parts(result)]
    if not parts:
        raise SubjectError(f"forward: returned {kind_of(result)} without an array of floats")
    return jnp.concatenate([jnp.ravel(_in_floats(part)) for part in parts])


def _in_floats(array: jax.Array) -> jax.Array:
    """Returns an array of floats, or both parts of a complex one along a new last axis."""
    return jnp.stack([array.real, array.imag], axis=-1) if is_complex(array) else array


def imaginary(result: Any) -> Array:
    """Returns whether each element of the packed outputs of a JAX function is an imaginary part."""
    parts = [jnp.asarray(leaf) for _, leaf in flat_parts(result)]
    halves = [np.tile([False, True] if is_complex(part) else [False], part.size) for part in parts]
    return np.concatenate(halves) if halves else np.zeros(0, bool)
