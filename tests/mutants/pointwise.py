"""Activations, which map each element on its own."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mutants.case import Family, off_kinks

ROOT = math.sqrt(2 / math.pi)
erf = np.vectorize(math.erf, otypes=[np.float64])


def draw(rng, scale):
    return (scale * off_kinks(rng, 4, 5),)


def draw_at_kinks(rng, scale):
    x = scale * rng.standard_normal((4, 5))
    x.flat[rng.permutation(20)[:6]] = 0.0
    return (x,)


def draw_near_kinks(rng, scale):
    x = rng.standard_normal((4, 5))
    x.flat[rng.permutation(20)[:4]] = 10.0 ** rng.uniform(-9, -4, 4) * rng.choice([-1, 1], 4)
    return (scale * x,)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def pointwise(name, f, df, reference, draw=draw):
    """y = f(x), dx = dout f'(x); the cache is (x, y)."""
    return Family(
        name, "x", lambda x: (f(x), (x, f(x))), lambda dout, c: (dout * df(*c),), draw, reference
    )  # fmt: skip


relu = pointwise("relu", lambda x: np.maximum(x, 0), lambda x, y: x > 0, jax.nn.relu)
relu.right("at_kinks", "some x are exactly 0, where the gradient is 0", relu.backward, draw_at_kinks)
relu.right(
    "at_kinks_all",
    "some x are exactly 0, where the gradient is dout",
    lambda dout, c: (dout * (c[0] >= 0),),
    draw_at_kinks,
)
relu.right("at_kinks_half", "some x are exactly 0, where the gradient is dout / 2",
           lambda dout, c: (dout * (0.5 * (1 + np.sign(c[0])).astype(c[0].dtype)),), draw_at_kinks)  # fmt: skip
relu.right("near_kinks", "some x are 1e-9 to 1e-4 from 0", relu.backward, draw_near_kinks)
relu.right("where", "written with where", lambda dout, c: (np.where(c[1] > 0, dout, 0),))
relu.wrong("no_mask", "x", "dout passes where x < 0", lambda dout, c, dx: dout.copy(), "mask is missing")
relu.wrong("inverted", "x", "the mask is inverted", lambda dout, c, dx: dout * (c[0] <= 0))
relu.wrong("dout_mask", "x", "the mask is of dout, as in guided backprop", lambda dout, c, dx:
           dout * (dout > 0), "not linear")  # fmt: skip
relu.wrong("both_masks", "x", "the masks of x and of dout", lambda dout, c, dx: dx * (dout > 0), "not linear")
relu.wrong("leak", "x", "0.01 dout passes where x < 0", lambda dout, c, dx: np.where(c[0] > 0, dout, 0.01 * dout),
           "mask is missing")  # fmt: skip
relu.wrong("threshold", "x", "the mask is x > 0.5", lambda dout, c, dx: dout * (c[0] > 0.5), "a part is missing")
relu.wrong("last_row", "x", "the last row is not masked", lambda dout, c, dx: np.concatenate([dx[:-1], dout[-1:]]),
           "mask is missing")  # fmt: skip
relu.wrong("times_x", "x", "dx is multiplied by x", lambda dout, c, dx: dx * c[0], "factor x")
relu.wrong("boolean", "x", "the mask itself is returned", lambda dout, c, dx: c[0] > 0, "bool")
relu.wrong("at_kinks_double", "x", "where x is 0, twice dout passes", lambda dout, c, dx:
           np.where(c[0] == 0, 2 * dout, dx), "", draw_at_kinks)  # fmt: skip
relu.wrong("at_kinks_negative", "x", "where x is 0, minus dout passes", lambda dout, c, dx:
           np.where(c[0] == 0, -dout, dx), "", draw_at_kinks)  # fmt: skip

leaky = pointwise(
    "leaky_relu",
    lambda x: np.where(x > 0, x, 0.1 * x),
    lambda x, y: np.where(x > 0, 1, 0.1).astype(x.dtype),
    lambda x: jax.nn.leaky_relu(x, 0.1),
)
leaky.right("at_kinks", "some x are exactly 0", leaky.backward, draw_at_kinks)
leaky.wrong(
    "no_slope", "x", "the gradient is 0 where x < 0", lambda dout, c, dx: dout * (c[0] > 0), "a part is missing"
)
leaky.wrong("other_slope", "x", "the slope is 0.01 in backward", lambda dout, c, dx:
            np.where(c[0] > 0, dout, 0.01 * dout), "times 0.1")  # fmt: skip
leaky.wrong("wrong_side", "x", "the slope is on the positive side", lambda dout, c, dx:
            np.where(c[0] < 0, dout, 0.1 * dout))  # fmt: skip

logistic = pointwise("sigmoid", sigmoid, lambda x, y: y * (1 - y), jax.nn.sigmoid)
logistic.right(
    "cosh", "1 / (2 + 2 cosh x)", lambda dout, c: (dout * (0.25 / np.cosh(np.clip(c[0], -60, 60) / 2) ** 2),)
)
logistic.wrong("y", "x", "dx = dout y", lambda dout, c, dx: dout * c[1])
logistic.wrong("one_minus_y", "x", "dx = dout (1 - y)", lambda dout, c, dx: dout * (1 - c[1]))
logistic.wrong("x", "x", "x (1 - x), as if x were the output", lambda dout, c, dx: dout * c[0] * (1 - c[0]))
logistic.wrong("square", "x", "y (1 - y²)", lambda dout, c, dx: dout * c[1] * (1 - c[1] ** 2))
logistic.wrong("sign", "x", "y (y - 1)", lambda dout, c, dx: -dx, "sign")
logistic.wrong("no_dout", "x", "dout is not multiplied in", lambda dout, c, dx: c[1] * (1 - c[1]), "ignores dout")
logistic.wrong("dout_squared", "x", "dout is multiplied in twice", lambda dout, c, dx: dx * dout, "not linear")

tanh = pointwise("tanh", np.tanh, lambda x, y: 1 - y**2, jnp.tanh)
tanh.right("cosh", "1 / cosh² x", lambda dout, c: (dout / np.cosh(np.clip(c[0], -60, 60)) ** 2,))
tanh.wrong("y", "x", "1 - y", lambda dout, c, dx: dout * (1 - c[1]))
tanh.wrong("plus", "x", "1 + y²", lambda dout, c, dx: dout * (1 + c[1] ** 2))
tanh.wrong("x", "x", "1 - x², as if x were the output", lambda dout, c, dx: dout * (1 - c[0] ** 2))
tanh.wrong("sigmoid", "x", "the sigmoid's derivative", lambda dout, c, dx: dout * c[1] * (1 - c[1]))
tanh.wrong("dropped", "x", "the derivative is left out", lambda dout, c, dx: dout.copy(), "dout itself")


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3)))


def gelu_tanh_slope(x, y):
    u, du = np.tanh(ROOT * (x + 0.044715 * x**3)), ROOT * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + u) + 0.5 * x * (1 - u**2) * du


def gelu_exact_slope(x):
    x = x.astype(np.float64)
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


gelu = pointwise("gelu", gelu_tanh, gelu_tanh_slope, lambda x: jax.nn.gelu(x, approximate=True))
gelu.wrong("exact", "x", "the derivative of the exact form, with the tanh form in forward",
           lambda dout, c, dx: (dout * gelu_exact_slope(c[0])).astype(dout.dtype))  # fmt: skip
gelu.wrong("no_inner", "x", "the inner derivative lacks 3 a x²", lambda dout, c, dx: dout * (
    0.5 * (1 + np.tanh(ROOT * (c[0] + 0.044715 * c[0] ** 3)))
    + 0.5 * c[0] * (1 - np.tanh(ROOT * (c[0] + 0.044715 * c[0] ** 3)) ** 2) * ROOT))  # fmt: skip
gelu.wrong("first_term", "x", "only the first term of the product rule", lambda dout, c, dx:
           dout * 0.5 * (1 + np.tanh(ROOT * (c[0] + 0.044715 * c[0] ** 3))))  # fmt: skip

softplus = pointwise("softplus", lambda x: np.logaddexp(0, x).astype(x.dtype), lambda x, y: sigmoid(x), jax.nn.softplus)
softplus.right("exp", "1 - exp(-y)", lambda dout, c: (dout * -np.expm1(-c[1]),))
softplus.wrong("tanh", "x", "tanh instead of the sigmoid", lambda dout, c, dx: dout * np.tanh(c[0]))

silu = pointwise("silu", lambda x: x * sigmoid(x), lambda x, y: sigmoid(x) * (1 + x * (1 - sigmoid(x))), jax.nn.silu)
silu.wrong("first_term", "x", "only the first term of the product rule", lambda dout, c, dx: dout * sigmoid(c[0]))
silu.wrong("one", "x", "y + s(x), without the - y s(x)", lambda dout, c, dx: dout * (c[1] + sigmoid(c[0])))

elu = pointwise("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
                lambda x, y: np.where(x > 0, 1, y + 1).astype(x.dtype), jax.nn.elu)  # fmt: skip
elu.wrong(
    "y", "x", "y instead of y + 1 on the negative side", lambda dout, c, dx: np.where(c[0] > 0, dout, dout * c[1])
)

power = pointwise("cube", lambda x: x**3, lambda x, y: 3 * x**2, lambda x: x**3)
power.wrong("exponent", "x", "3 x instead of 3 x²", lambda dout, c, dx: dout * 3 * c[0], "factor x")
power.wrong("coefficient", "x", "x² instead of 3 x²", lambda dout, c, dx: dx / 3)

log = pointwise("log", np.log, lambda x, y: 1 / x, jnp.log, lambda rng, scale: (scale * (0.5 + rng.random((3, 4))),))
log.wrong("y", "x", "1 / y instead of 1 / x", lambda dout, c, dx: dout / c[1])

root = pointwise(
    "sqrt", np.sqrt, lambda x, y: 0.5 / y, jnp.sqrt, lambda rng, scale: (scale * (0.5 + rng.random((3, 4))),)
)
root.wrong("half", "x", "1 / y instead of 1 / (2 y)", lambda dout, c, dx: 2 * dx, "factor of 2")

absolute = pointwise("abs", np.abs, lambda x, y: np.sign(x), jnp.abs)
absolute.right("at_kinks", "some x are exactly 0", absolute.backward, draw_at_kinks)
absolute.wrong("sign", "x", "the sign of x is missing", lambda dout, c, dx: dout.copy())
