"""What a trained network says: of many samples at once, or of a text, character after character."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnet.nn.layers import Layer, Params, Tree
from jaxnet.validation import check_counts


@partial(jax.jit, static_argnames="net")
def predict(net: Layer, params: Params, state: Tree, x: Array) -> Array:
    """The logits in inference, (N, ...) -> (N, ..., C), however large N is.

    Raises:
        ValueError: N is 0, or the network does not take such samples.
    """
    check_counts(samples=len(x))
    return by_chunks(partial(net.infer, params, state), x)


def chunk_of(x: Any) -> int:
    """How many samples at once: rows of numbers, or fewer where a sample is an image or a text.

    What a convolution makes of 100 images fits in a cache, and takes two thirds of the time that it takes by thousands;
    the products of plain rows are the quicker the more there are.
    """
    return 1000 if x.ndim == 2 and x.dtype != jnp.int32 else 100


def by_chunks(function: Callable[..., Array], *arrays: Array) -> Array:
    """function(*arrays), where the function goes by samples, taken so many at a time as `chunk_of` says."""
    chunk = chunk_of(arrays[0])
    whole = len(arrays[0]) - len(arrays[0]) % chunk
    rest, parts = [a[whole:] for a in arrays], []
    if whole:
        chunked = lax.map(lambda chunk: function(*chunk), [a[:whole].reshape(-1, chunk, *a.shape[1:]) for a in arrays])
        parts.append(chunked.reshape(whole, *chunked.shape[2:]))
    if len(rest[0]):
        parts.append(function(*rest))
    return jnp.concatenate(parts)


@partial(jax.jit, static_argnames=("net", "length", "count"))
def sample(
    net: Layer,
    params: Params,
    state: Tree,
    key: PRNGKeyArray,
    prompt: Int[Array, "N P"],
    temperature: float | Float[Array, ""] = 1.0,
    *,
    length: int,
    count: int,
) -> Int[Array, "N {count}"]:
    """`count` ids to follow the prompt, each drawn from softmax(logits / temperature) of what the net says comes next.

    The net, such as `transformer`, is shown the last `length` ids at most: it must be causal, since what stands behind
    the last known one is filled up with zeros. The temperature, > 0, makes the likely likelier below 1.

    Raises:
        ValueError: The prompt is no matrix of integers with a column, or a count is below 1.
    """
    if prompt.ndim != 2 or prompt.shape[1] < 1 or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(f"prompt: {prompt.dtype} of shape {prompt.shape}, expected integers (N, P) with P at least 1")
    if length < 1 or count < 1:
        raise ValueError(f"length, count: {length}, {count}, expected at least 1")
    shown = prompt[:, -length:]

    def following(now: tuple[Array, Any], key: PRNGKeyArray) -> tuple[tuple[Array, Any], Array]:
        window, known = now  # (N, length), of which so many are known
        logits = net.infer(params, state, window)[:, known - 1]  # (N, V)
        new = jax.random.categorical(key, logits / temperature).astype(window.dtype)  # (N,)
        window = jnp.where(known == length, jnp.roll(window, -1, axis=1), window)
        known = jnp.minimum(known + 1, length)
        return (window.at[:, known - 1].set(new), known), new

    window = jnp.pad(shown, ((0, 0), (0, length - shown.shape[1])))
    _, ids = lax.scan(following, (window, jnp.array(shown.shape[1])), jax.random.split(key, count))
    return ids.T
