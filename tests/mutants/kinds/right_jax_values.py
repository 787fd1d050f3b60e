"""Right functions in JAX with unusual values: keys, complex numbers, infinities, empty arrays, extreme sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check, check_function
from mutants.kinds import Draw, right


@right("jax-value/typed-key", "dropout with a typed key as an argument")
def typed_key(seed):
    def drop(x, key):
        return jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0)

    return check_function(drop, Draw(seed)(4, 3), jax.random.key(seed))


@right("jax-value/raw-key-and-noise", "a sample mu + s * noise, drawn with a raw key of integers")
def raw_key(seed):
    draw = Draw(seed)
    return check_function(
        lambda mu, s, key: mu + jnp.exp(s) * jax.random.normal(key, mu.shape),
        draw(4),
        draw(4),
        jax.random.PRNGKey(seed),
    )


@right("jax-value/key-in-a-tree-of-state", "a key within a dict of state")
def key_in_state(seed):
    draw = Draw(seed)

    def function(state, x):
        return jnp.tanh(x @ state["w"]) * jax.random.bernoulli(state["key"], 0.5, (5, 3))

    return check_function(function, {"w": draw(4, 3), "key": jax.random.key(seed)}, draw(5, 4))


@right("jax-value/complex-in-between", "a power spectrum, with complex numbers only in between")
def spectrum(seed):
    return check_function(lambda x: jnp.log1p(jnp.abs(jnp.fft.rfft(x)) ** 2), Draw(seed)(8))


@right("jax-value/phase-rotation", "rotary embeddings by complex multiplication")
def rotary(seed):
    angle = np.arange(5)[:, None] / 10 ** np.arange(2)

    def rotate(x):
        z = (x[:, ::2] + 1j * x[:, 1::2]) * jnp.exp(1j * angle)
        return jnp.stack([z.real, z.imag], axis=-1).reshape(x.shape)

    return check_function(rotate, Draw(seed)(5, 4))


@right("jax-value/minus-infinity-where-masked", "attention in which `where` inserts -inf")
def infinite(seed):
    draw = Draw(seed)
    causal = np.tril(np.ones((5, 5), bool))

    def attend(q, k, v):
        return jax.nn.softmax(jnp.where(causal, q @ k.T, -jnp.inf)) @ v

    return check_function(attend, draw(5, 3), draw(5, 3), draw(5, 2))


@right("jax-value/additive-mask-of-minus-infinity", "a mask of 0 and -inf that is a float argument")
def additive(seed):
    draw = Draw(seed)
    mask = np.where(np.tril(np.ones((4, 4))) > 0, 0, -np.inf)
    return check_function(lambda s, mask: jax.nn.log_softmax(s + mask)[:, 0], draw(4, 4), mask)


@right("jax-value/empty-argument", "an empty array among the arguments")
def empty(seed):
    return check_function(lambda x, extra: jnp.concatenate([x, extra]).sum() ** 2, Draw(seed)(4), np.zeros(0))


@right("jax-value/empty-output", "an empty array among the outputs")
def empty_output(seed):
    return check_function(lambda x: (x[:0], jnp.sin(x)), Draw(seed)(4))


for exponent in (-200, -40, 40, 150):

    @right(f"jax-value/outputs-of-1e{exponent}", f"a smooth function whose values are of size 1e{exponent}")
    def extreme(seed, factor=10.0**exponent):
        return check_function(lambda x: factor * jnp.sin(x), Draw(seed)(5))

    @right(f"jax-value/inputs-of-1e{exponent}", f"the logarithm of numbers of size 1e{exponent}")
    def extreme_inputs(seed, factor=10.0**exponent):
        return check_function(jnp.log, factor * Draw(seed).positive(5))


@right("jax-value/different-sizes-in-one-array", "x / (1 + x) for x of 1e-8 to 1e8 in one array")
def unlike(seed):
    return check_function(lambda x: x / (1 + x), 10.0 ** np.arange(-8, 9, 2) * Draw(seed).positive(9))


@right("jax-value/rest-arguments", "f(x, *others)")
def rest(seed):
    draw = Draw(seed)
    return check_function(lambda x, *others: x * others[0] + jnp.cos(others[1]), draw(3), draw(3), draw(3))


@right("jax-value/keyword-and-default", "a parameter with a default, and a keyword-only one")
def defaults(seed):
    def function(x, scale=2.0, *, power=3):
        return scale * x**power

    return check_function(function, Draw(seed)(4))


@right("jax-value/numbers-for-arrays", "arguments that are Python numbers")
def numbers(seed):
    return check_function(lambda a, b: jnp.exp(a) * b, 0.3 + seed, 1.7)


@right("jax-value/integers-and-floats", "a table, integer ids, and a flag")
def integers(seed):
    draw = Draw(seed)

    def function(w, ids, causal):
        y = w[ids]
        return jnp.cumsum(y, axis=0) if causal else y

    return check_function(function, draw(6, 3), draw.rng.integers(0, 6, 5), True)


@right("jax-value/equal-names-in-two-trees", "two dicts with the same keys")
def same_names(seed):
    draw = Draw(seed)
    return check_function(lambda a, b: jnp.tanh(a["w"] @ b["w"]), {"w": draw(3, 4)}, {"w": draw(4, 2)})


@right("jax-value/attention-by-jax", "jax.nn.dot_product_attention, whose product is in float32 at most", step=3e-2)
def attention(seed):
    draw = Draw(seed)
    return check_function(
        lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
        draw(1, 4, 2, 3),
        draw(1, 4, 2, 3),
        draw(1, 4, 2, 3),
    )


@right("jax-value/float32-arrays-of-jax", "a network of JAX arrays, which are float32", step=3e-2)
def single(seed):
    draw = Draw(seed)
    arrays = [jnp.asarray(draw(*s), jnp.float32) for s in ((5, 4), (4, 6), (6, 3))]
    return check(lambda x, w, v: jax.nn.log_softmax(jnp.maximum(x @ w, 0) @ v), *arrays)


@right(
    "jax-value/preferred-element-type", "a product that is accumulated in float32 by preferred_element_type", step=3e-2
)
def preferred(seed):
    draw = Draw(seed)

    def product(a, b):
        return jax.lax.dot(a.astype(jnp.float32), b.astype(jnp.float32), preferred_element_type=jnp.float32)

    return check_function(product, draw(4, 5), draw(5, 3))
