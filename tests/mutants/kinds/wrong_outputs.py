"""Several outputs, in dicts, nested tuples, dataclasses and carries, one of them with a wrong gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong


def ruled(f, bwd):
    """Returns f with a reverse rule of (arguments, dout)."""
    g = jax.custom_vjp(f)
    g.defvjp(lambda *args: (f(*args), args), bwd)
    return g


third = ruled(lambda x: x**3, lambda r, g: (g * 3 * r[0],))  # 3 x for 3 x^2
halved = ruled(lambda c: c, lambda r, g: (0.5 * g,))


@wrong("outputs/dict", "The second value of a dict has the wrong gradient.")
def _(seed):
    return check_function(lambda x: {"first": jnp.sin(x), "second": third(x)}, Draw(seed)(4))


@wrong("outputs/nested-tuples", "The innermost of nested tuples has the wrong gradient.")
def _(seed):
    return check_function(lambda x: (jnp.sin(x), (x * 2, (jnp.cos(x), third(x)))), Draw(seed)(2, 3))


@wrong("outputs/list-in-a-dict", "A list within a dict holds an output with the wrong gradient.")
def _(seed):
    draw = Draw(seed)
    return check_function(lambda x, w: {"hidden": [x @ w, third(x @ w)], "n": 3}, draw(4, 3), draw(3, 2))


@wrong("outputs/dataclass", "A registered dataclass is returned, and its second field has the wrong gradient.")
def _(seed):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Outcome:
        mean: jax.Array
        scale: jax.Array

    return check_function(lambda x: Outcome(jnp.tanh(x), third(x)), Draw(seed)(5))


@wrong("outputs/namedtuple-of-a-pair", "An LSTM-like pair does not add the upstream gradient of the cell.")
def _(seed):
    draw = Draw(seed)

    def forward(x, c):
        cell = np.tanh(x) + 0.5 * c
        return np.tanh(cell), cell, (x, cell)

    def backward(dh, dc, cache):
        x, cell = cache
        d = dh * (1 - np.tanh(cell) ** 2)  # + dc
        return d * (1 - np.tanh(x) ** 2), 0.5 * d

    return check_layer((forward, backward), draw(3, 4), draw(3, 4))


@wrong("outputs/scan-carry-halved", "The carry's cotangent is halved at every step of a scan.")
def _(seed):
    draw = Draw(seed)

    def run(w, h, xs):
        def step(h, x):
            h = halved(jnp.tanh(h @ w + x))
            return h, h.sum()

        return jax.lax.scan(step, h, xs)

    return check_function(run, draw(3, 3), draw(3), draw(4, 3))


@wrong("outputs/scan-carry-tree", "A carry is a dict, and the cotangents of its entries are exchanged.")
def _(seed):
    draw = Draw(seed)
    crossed = ruled(lambda a, b: (jnp.sin(a), jnp.cos(b)), lambda r, g: (g[1] * jnp.cos(r[0]), -g[0] * jnp.sin(r[1])))

    def run(a, b, xs):
        def step(c, x):
            p, q = crossed(c["p"] + x, c["q"] * x)
            return {"p": p, "q": q}, p * q

        return jax.lax.scan(step, {"p": a, "q": b}, xs)

    return check_function(run, draw(3), draw(3), draw(4, 3))


@wrong("outputs/value-and-auxiliary", "A loss and its logits are returned, and the gradient of the logits is wrong.")
def _(seed):
    draw = Draw(seed)

    def loss(w, x):
        logits = third(x @ w)
        return jnp.mean(logits * 0 + jnp.tanh(x @ w)), {"logits": logits}

    return check_function(loss, draw(3, 2), draw(4, 3))


@wrong("outputs/numpy-second-output-ignored", "Mean and variance are returned; the variance's dout is not used.")
def _(seed):
    draw = Draw(seed)

    def forward(x):
        return x.mean(0), x.var(0), x

    def backward(dmean, dvar, x):
        return np.broadcast_to(dmean / len(x), x.shape).copy()

    return check_layer((forward, backward), draw(*draw.sizes(2)))


@wrong("outputs/class-with-two-outputs", "A class returns top and bottom; the upstream gradient of bottom is doubled.")
def _(seed):
    draw = Draw(seed)

    class Split:
        def forward(self, x):
            self.x = x
            return np.exp(x[:, :2]), np.sin(x[:, 2:])

        def backward(self, dtop, dbottom):
            return np.concatenate([dtop * np.exp(self.x[:, :2]), 2 * dbottom * np.cos(self.x[:, 2:])], axis=1)

    return check_layer(Split(), draw(3, 5))
