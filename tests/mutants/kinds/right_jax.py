"""Right rules and functions in JAX: custom rules, solvers, loops, trees and transformations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check, check_function
from mutants.kinds import Draw, right


def with_rule(function, forward, backward, **options):
    rule = jax.custom_vjp(function, **options)
    rule.defvjp(forward, backward)
    return rule


@right("jax-rule/stable-log1pexp", "log(1 + exp(x)) with its textbook rule")
def log1pexp(seed):
    f = jax.custom_jvp(lambda x: jnp.log(1 + jnp.exp(x)))
    f.defjvp(lambda primals, tangents: (f(*primals), (1 - 1 / (1 + jnp.exp(primals[0]))) * tangents[0]))
    return check_function(f, 3 * Draw(seed)(5))


@right("jax-rule/norm-with-a-choice-at-0", "a norm whose rule returns 0 at the origin, checked elsewhere")
def safe_norm(seed):
    def forward(x):
        n = jnp.linalg.norm(x)
        return n, (x, n)

    def backward(saved, g):
        x, n = saved
        return (jnp.where(n == 0, 0, g * x / jnp.where(n == 0, 1, n)),)

    return check_function(with_rule(lambda x: jnp.linalg.norm(x), forward, backward), Draw(seed)(6))


@right("jax-rule/static-argument", "a rule with an argument that is not an array, by nondiff_argnums")
def static(seed):
    def power(n, x):
        return x**n

    f = with_rule(power, lambda n, x: (x**n, x), lambda n, x, g: (g * n * x ** (n - 1),), nondiff_argnums=(0,))
    return check_function(lambda x: f(3, x), Draw(seed)(5))


@right("jax-rule/tree-in-tree-out", "a rule over a dict of parameters, and a dict of outputs")
def tree(seed):
    draw = Draw(seed)

    def function(p, x):
        h = jnp.tanh(x @ p["w"])
        return {"h": h, "s": h.sum() + p["b"]}

    def backward(saved, g):
        p, x, h = saved
        d = (g["h"] + g["s"]) * (1 - h**2)
        return {"w": x.T @ d, "b": g["s"]}, d @ p["w"].T

    f = with_rule(function, lambda p, x: (function(p, x), (p, x, jnp.tanh(x @ p["w"]))), backward)
    return check_function(f, {"w": draw(4, 3), "b": np.array(0.2)}, draw(5, 4))


def straight_through():
    return with_rule(lambda x: jnp.round(x), lambda x: (jnp.round(x), None), lambda _, g: (g,))


@right("jax-rule/straight-through-as-expected", "rounding with the identity's gradient, declared by expected=")
def straight(seed):
    return check_function(straight_through(), Draw(seed)(6), expected=lambda x: x)


@right("jax-rule/quantised-layer-as-expected", "weights rounded to eighths; expected is the layer that does not round")
def quantised(seed):
    draw, rounded = Draw(seed), straight_through()

    def layer(x, w):
        return x @ (rounded(8 * w) / 8)

    def backward_of(x, w):
        return x @ w

    rule = with_rule(layer, lambda x, w: (layer(x, w), (x, w)), lambda s, g: (g @ s[1].T, s[0].T @ g))
    return check_function(rule, draw(5, 4), draw(4, 3), expected=backward_of)


@right("jax-rule/reversed-gradient-as-expected", "a gradient reversal layer, declared by expected=")
def reversal(seed):
    rule = with_rule(lambda x: x, lambda x: (x, None), lambda _, g: (-0.5 * g,))
    return check_function(rule, Draw(seed)(4, 3), expected=lambda x: -0.5 * x)


@right("jax-rule/surrogate-of-a-spike-as-expected", "a spike's surrogate, the derivative of a steep sigmoid")
def spike(seed):
    def backward(x, g):
        s = jax.nn.sigmoid(4 * x)
        return (4 * g * s * (1 - s),)

    rule = with_rule(lambda x: (x > 0) * 1.0, lambda x: ((x > 0) * 1.0, x), backward)
    return check_function(rule, Draw(seed)(6), expected=lambda x: jax.nn.sigmoid(4 * x))


def iterate(step, start, tolerance):
    return jax.lax.while_loop(lambda p: jnp.abs(p[0] - p[1]).max() > tolerance, lambda p: (step(p[0]), p[0]),
                              (step(start), start))[0]  # fmt: skip


@right("jax-solver/root-to-1e-6", "an implicit root found to 1e-6, accuracy=1e-4")
def root(seed):
    def solve(f, guess):
        return iterate(lambda y: y - 0.4 * f(y), guess, 1e-6)

    def tangent(f, b):
        return b / f(jnp.ones_like(b))

    def function(a):
        return jax.lax.custom_root(lambda y: y**3 + y - a, jnp.zeros_like(a), solve, tangent)

    return check_function(jax.jit(function), Draw(seed).positive(4, low=0.2, high=1), accuracy=1e-4)


@right("jax-solver/conjugate-gradients-to-1e-5", "a linear solve by conjugate gradients in both passes, accuracy=1e-3")
def conjugate(seed):
    draw = Draw(seed)
    q, _ = np.linalg.qr(draw(6, 6))
    a = q * np.linspace(1, 5, 6) @ q.T

    def function(b, s):
        matrix = a + s * jnp.eye(6)
        return jax.scipy.sparse.linalg.cg(lambda v: matrix @ v, b, tol=1e-5)[0]

    return check_function(jax.jit(function), draw(6), np.array(0.3), accuracy=1e-3)


@right("jax-solver/equilibrium-layer", "a fixed point of tanh(w z + x) and its implicit adjoint, both to 1e-7")
def equilibrium(seed):
    draw = Draw(seed)

    def function(w, x):
        return iterate(lambda z: jnp.tanh(w @ z + x), jnp.zeros_like(x), 1e-7)

    def forward(w, x):
        z = function(w, x)
        return z, (w, z)

    def backward(saved, g):
        w, z = saved
        slope = 1 - z**2
        u = iterate(lambda u: g + w.T @ (slope * u), g, 1e-7)
        return jnp.outer(slope * u, z), slope * u

    return check_function(jax.jit(with_rule(function, forward, backward)), 0.15 * draw(4, 4), draw(4), accuracy=1e-4)


@right("jax-loop/scan-with-a-carry", "a recurrent cell under scan, with a tuple as its carry and stacked outputs")
def scan(seed):
    draw = Draw(seed)

    def run(w, carry, xs):
        def cell(carry, x):
            h, c = carry
            c = 0.5 * c + jnp.tanh(x + h @ w)
            return (jnp.tanh(c), c), c.sum()

        return jax.lax.scan(cell, carry, xs)

    return check_function(run, draw(3, 3), (draw(3), draw(3)), draw(5, 3))


@right("jax-loop/fori-with-cond", "a loop of a fixed count and a branch by the sign of a sum")
def branch(seed):
    def run(x):
        y = jax.lax.fori_loop(0, 4, lambda i, y: jnp.sin(y) + 0.3 * y, x)
        return jax.lax.cond(x.sum() > 0, jnp.exp, lambda y: y**2, y)

    return check_function(run, Draw(seed)(5) + 0.5)


@right("jax-transform/checkpointed-layers", "a network whose layers are rematerialised")
def remat(seed):
    draw = Draw(seed)
    layer = jax.checkpoint(lambda h, w: jnp.tanh(h @ w))
    return check_function(lambda x, a, b: layer(layer(x, a), b), draw(5, 4), draw(4, 6), draw(6, 3))


@right("jax-transform/jit-of-vmap", "a per-sample function that is mapped and compiled")
def mapped(seed):
    draw = Draw(seed)
    f = jax.jit(jax.vmap(lambda x, w: jnp.log1p(jnp.exp(x @ w)).sum(), in_axes=(0, None)))
    return check_function(f, draw(5, 4), draw(4, 3))


@right("jax-transform/gradient-of-a-gradient", "a gradient penalty: JAX differentiates its own gradient")
def penalty(seed):
    draw = Draw(seed)

    def critic(x, w, v):
        return jnp.tanh(x @ w) @ v

    def loss(x, w, v):
        g = jax.vmap(jax.grad(critic), (0, None, None))(x, w, v)
        return ((jnp.linalg.norm(g, axis=1) - 1) ** 2).mean()

    return check_function(loss, draw(5, 3), draw(3, 4), draw(4))


@right("jax-transform/jvp-rule", "a custom JVP with a symbolic zero for its second argument's tangent")
def custom_jvp(seed):
    draw = Draw(seed)
    f = jax.custom_jvp(lambda x, y: jnp.sin(x) * y)
    f.defjvps(lambda t, ans, x, y: jnp.cos(x) * y * t, lambda t, ans, x, y: jnp.sin(x) * t)
    return check_function(f, draw(4), draw(4))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """A module that is a pytree."""

    w: jax.Array
    b: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.w + self.b)


@right("jax-tree/registered-module", "a registered module that is called with x")
def module(seed):
    draw = Draw(seed)
    return check(Linear(jnp.asarray(draw(4, 3)), jnp.asarray(draw(3))), draw(5, 4))


@right("jax-tree/module-as-an-argument", "a function of a registered module and x")
def module_argument(seed):
    draw = Draw(seed)
    return check_function(lambda m, x: m(x), Linear(draw(4, 3), draw(3)), draw(5, 4))
