"""Custom JAX rules that return the value of another function, half precision, and arguments mistaken for dout."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_function
from mutants.kinds import Draw, wrong
from mutants.kinds.truth import Measuring


def rule(primal, fwd, bwd):
    """Returns `primal` with a reverse rule."""
    f = jax.custom_vjp(primal)
    f.defvjp(fwd, bwd)
    return f


def primal(name, sentence):
    """Registers a function whose value under differentiation is a different one, with an input."""

    def register(make):
        def true(seed):
            with jax.enable_x64(True):
                f, x = make(seed)
                plain, under = jax.tree.leaves(f(x)), jax.tree.leaves(jax.vjp(f, jnp.asarray(x))[0])
                return max(
                    float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))) for a, b in zip(plain, under, strict=True)
                )

        wrong(f"primal/{name}", sentence, says=FORWARD, true=true)(lambda seed: check_function(*make(seed)))
        return make

    return register


def half(name, sentence):
    """Registers a function in half precision; its error is that of the same code for float64 arrays."""

    def register(make):
        def true(seed):
            f, gradient, *args = make(seed)
            args = [np.asarray(a).astype(np.float64) for a in args]
            return Measuring(seed, 0.04).check_function(f, *args, gradient=gradient)

        def run(seed):
            f, gradient, *args = make(seed)
            return check_function(f, *args, gradient=gradient)

        wrong(f"half/{name}", sentence, true=true, off=0.05)(run)
        return make

    return register


FORWARD = r"(?i)primal|forward|fwd|value"


@primal("fwd-without-eps", "fwd leaves out the 0.1 that is added under the root.")
def _(seed):
    f = rule(lambda x: jnp.sqrt(x * x + 0.1), lambda x: (jnp.abs(x), x), lambda x, g: (g * x / jnp.sqrt(x * x + 0.1),))
    return f, Draw(seed)(5)


@primal("fwd-scaled-by-temperature", "fwd divides by the temperature, primal does not.")
def _(seed):
    def bwd(y, g):
        return (y * (g - (g * y).sum(-1, keepdims=True)),)

    def fwd(x):
        return jax.nn.softmax(x / 2), jax.nn.softmax(x)

    return rule(lambda x: jax.nn.softmax(x), fwd, bwd), Draw(seed)(3, 5)


@primal("fwd-is-the-approximation", "fwd has GELU's tanh form with a wrong constant, primal the exact one.")
def _(seed):
    def exact(x):
        return jax.nn.gelu(x, approximate=False)

    def fwd(x):
        return 0.5 * x * (1 + jnp.tanh(0.7 * (x + 0.0447 * x**3))), x

    return rule(exact, fwd, lambda x, g: (g * jax.vmap(jax.grad(exact))(x),)), Draw(seed)(6)


@primal(
    "second-output-differs", "The second output of fwd is the variance, that of the primal is the standard deviation."
)
def _(seed):
    def primal(x):
        return x.mean(), x.std()

    def fwd(x):
        return (x.mean(), x.var()), x

    def bwd(x, g):
        return (g[0] / x.size + g[1] * (x - x.mean()) / (x.size * x.std()),)

    return rule(primal, fwd, bwd), Draw(seed)(7)


@half("bfloat16-weight-sign", "The gradient of a bfloat16 weight, with a float32 input, has the wrong sign.")
def _(seed):
    draw = Draw(seed)

    def f(x, w):
        return jnp.tanh(x * w.astype(x.dtype))

    def bwd(r, g):
        x, w = r
        d = g * (1 - f(x, w) ** 2)
        return d * w.astype(x.dtype), (-(d * x).sum(0)).astype(w.dtype)

    bad = rule(f, lambda x, w: (f(x, w), (x, w)), bwd)
    return bad, None, jnp.asarray(draw(5, 3), jnp.float32), jnp.asarray(draw(3), jnp.bfloat16)


@half("bfloat16-all", "Everything is in bfloat16, and the gradient is that of x**2 instead of x**3.")
def _(seed):
    f = rule(lambda x: x**3, lambda x: (x**3, x), lambda x, g: ((2 * x * g).astype(x.dtype),))
    return f, None, jnp.asarray(Draw(seed).off_zero(3, 4, gap=0.5), jnp.bfloat16)


@half("float16-numpy", "A float16 layer in NumPy whose weights' gradient is doubled.")
def _(seed):
    draw = Draw(seed)

    def f(x, w):
        return (x.astype(np.float32) @ w.astype(np.float32)).astype(x.dtype)

    def gradient(x, w, dout):
        d = dout.astype(np.float32)
        return (d @ w.astype(np.float32).T).astype(x.dtype), (2 * x.astype(np.float32).T @ d).astype(w.dtype)

    return f, gradient, draw(4, 3, dtype=np.float16), draw(3, 2, dtype=np.float16)


@half("float16-bias-mean", "The bias of a float16 layer gets the mean over the batch.")
def _(seed):
    draw = Draw(seed)

    def f(x, b):
        return jnp.tanh(x + b)

    def bwd(r, g):
        d = g * (1 - f(*r) ** 2)
        return d, d.mean(0)

    bad = rule(f, lambda x, b: (f(x, b), (x, b)), bwd)
    return bad, None, jnp.asarray(draw(6, 3), jnp.float16), jnp.asarray(draw(3), jnp.float16)


@wrong("option/weight-decay-default", "The default of weight_decay differs between the gradient and the function.")
def _(seed):
    def loss(w, x, weight_decay=0.1):
        return ((x @ w) ** 2).sum() + weight_decay * (w**2).sum()

    def gradient(w, x, weight_decay=0.5):
        return 2 * x.T @ (x @ w) + 2 * weight_decay * w, 2 * np.outer(x @ w, w)

    draw = Draw(seed)
    return check_function(loss, draw(3), draw(5, 3), gradient=gradient)


@wrong("option/keyword-only-factor", "The default of a keyword-only option multiplies the gradient by 2.")
def _(seed):
    def gradient(x, *, strength=2.0):
        return strength * np.cos(x)

    return check_function(lambda x: np.sin(x).sum(), Draw(seed)(6), gradient=gradient)


@wrong(
    "option/eps-before-x",
    "An option `n=1`, at the place where dout could be, divides the gradient; the function is a mean.",
)
def _(seed):
    def gradient(x, n=1):
        return 2 * x / n

    return check_function(lambda x: float((x**2).mean()), Draw(seed)(7), gradient=gradient)


@wrong("option/delta-of-huber", "The gradient of the Huber loss has a default delta that is half of the loss's.")
def _(seed):
    def huber(r, delta=1.0):
        a = np.abs(r)
        return np.where(a < delta, 0.5 * r**2, delta * (a - 0.5 * delta)).sum()

    return check_function(huber, 0.1 + Draw(seed).off_zero(9), gradient=lambda r, delta=0.5: np.clip(r, -delta, delta))
