"""Inference with a trained network: logits of many samples, or ids that continue a text."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxnet.common.validation import check_counts, check_ids, check_key, check_positive, native
from jaxnet.nn.cpu_layers import for_cpu, is_faster_for_cpu
from jaxnet.nn.decoding import Position, can_decode, decode, empty_cache
from jaxnet.nn.description import symbol_count
from jaxnet.nn.layers import Layer, Params, Tree

__all__ = ["predict", "sample"]


def predict(net: Layer, params: Params, state: Tree, x: Any) -> Array:
    """Returns the logits in inference, (N, ...) -> (N, ..., C).

    It works in chunks, so N may be large. Samples that are not on a device, such as those of a memory map, are copied
    to it chunk by chunk, each while the device computes with the one before.

    Raises:
        ValueError: If N is 0, the samples do not fit the network, or are no numbers.
    """
    if isinstance(x, str | os.PathLike):
        preparing = f"run.read_images({str(x)!r}) prepares an image, where run = jaxnet.load(folder)"
        raise ValueError(f"x: {x!r}, expected an array of samples (N, ...); {preparing}")
    on_device = isinstance(x, jax.Array)
    x = x if on_device else native(np.asarray(x))
    if x.ndim == 0:
        raise ValueError(f"x: {x}, a single number, expected an array of samples (N, ...)")
    symbols = symbol_count(net)
    if symbols is not None and not isinstance(x, jax.core.Tracer):
        check_ids("x", x, symbols)
    size = chunk_of(x)
    if on_device or len(x) <= size:
        return _predict(net, params, state, x)
    return jnp.concatenate([_predict(net, params, state, x[i : i + size]) for i in range(0, len(x), size)])


@partial(jax.jit, static_argnames="net")
def _predict(net: Layer, params: Params, state: Tree, x: Array) -> Array:
    check_counts(samples=len(x))
    if jax.default_backend() == "cpu" and is_faster_for_cpu(net):
        net = for_cpu(net)
    return by_chunks(partial(net.infer, params, state), x)


def chunk_of(x: Any) -> int:
    """Returns the number of samples in a chunk: 2,000 rows of numbers, or 100 images or texts.

    A convolution by hundreds of images, whose windows fit in the processor's cache, takes two thirds of the time that
    it takes by thousands. Products of plain rows are faster by thousands.
    """
    return 2000 if x.ndim == 2 and x.dtype != jnp.int32 else 100


def by_chunks(function: Callable[..., Array], *arrays: Array) -> Array:
    """Returns function(*arrays), computed chunk by chunk, for a function that treats each sample by itself."""
    size = chunk_of(arrays[0])
    whole = len(arrays[0]) - len(arrays[0]) % size  # the samples in chunks of full size
    results = []
    if whole:
        chunks = [a[:whole].reshape(-1, size, *a.shape[1:]) for a in arrays]
        result = lax.map(lambda chunk: function(*chunk), chunks)
        results.append(result.reshape(whole, *result.shape[2:]))
    if whole < len(arrays[0]):
        results.append(function(*(a[whole:] for a in arrays)))
    return jnp.concatenate(results)


def sample(
    net: Layer,
    params: Params,
    state: Tree,
    key: PRNGKeyArray,
    prompt: Int[Array | np.ndarray, "N P"],
    temperature: float | Float[Array, ""] = 1.0,
    *,
    length: int,
    count: int,
) -> Int[Array, "N {count}"]:
    """Returns `count` ids that continue each prompt, drawn one by one from softmax(logits / temperature).

    Until `length` ids are known, a new one costs one position, by `jaxnet.nn.decoding`; from then on, a whole window.

    Args:
        net: A network of ids, such as `transformer`, where later positions do not change the logits of earlier ones.
        params: Its parameters; `state` is its state.
        key: The key for the noise.
        prompt: Integers (N, P) with P >= 1, of which the last `length` are used.
        temperature: A number > 0. Below 1 it makes likely ids more likely. Defaults to 1.
        length: The number of ids that the network takes, >= 1.
        count: The number of ids to draw, >= 1.

    Raises:
        ValueError: If the prompt is no such matrix or has ids that the network does not know, the temperature is not
            above 0, a count is below 1, or the key is none.
    """
    if not isinstance(prompt, jax.Array):
        prompt = native(np.asarray(prompt))
    if prompt.ndim != 2 or prompt.shape[1] < 1 or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(f"prompt: {prompt.dtype} of shape {prompt.shape}, expected integers (N, P) with P at least 1")
    symbols = symbol_count(net)
    if symbols is not None and not isinstance(prompt, jax.core.Tracer):
        check_ids("prompt", prompt, symbols)
    if not isinstance(temperature, jax.core.Tracer):
        check_positive("temperature", temperature)
    check_counts(length=length, count=count)
    check_key("key", key)
    return _sample(net, params, state, key, prompt, temperature, length=length, count=count)


@partial(jax.jit, static_argnames=("net", "length", "count"))
def _sample(
    net: Layer,
    params: Params,
    state: Tree,
    key: PRNGKeyArray,
    prompt: Int[Array, "N P"],
    temperature: float | Float[Array, ""],
    *,
    length: int,
    count: int,
) -> Int[Array, "N {count}"]:
    prompt = prompt[:, -length:]
    keys = jax.random.split(key, count)
    with_cache = min(count, length - prompt.shape[1] + 1) if can_decode(net) else 0  # then all positions move
    infer = partial(net.infer, params, state)

    def append(window: Window, logits: Array, key: PRNGKeyArray) -> tuple[Window, Array]:
        ids = jax.random.categorical(key, logits / temperature).astype(prompt.dtype)  # (N,)
        full = window.known == length
        columns = jnp.where(full, jnp.roll(window.ids, -1, axis=1), window.ids)
        known = jnp.minimum(window.known + 1, length)
        return Window(columns.at[:, known - 1].set(ids), known), ids

    def draw_by_window(window: Window, key: PRNGKeyArray) -> tuple[Window, Array]:
        return append(window, infer(window.ids)[:, window.known - 1], key)  # of (N, length, V)

    def draw_by_cache(carry: tuple[Window, Tree], key: PRNGKeyArray) -> tuple[tuple[Window, Tree], Array]:
        window, cache = carry
        logits, cache = decode(net, params, state, cache, window.position(window.known - 1))
        window, ids = append(window, logits[:, 0], key)
        return (window, cache), ids

    def read(cache: Tree, number: Array) -> tuple[Tree, None]:
        return decode(net, params, state, cache, window.position(number))[1], None

    window = Window(jnp.pad(prompt, ((0, 0), (0, length - prompt.shape[1]))), jnp.array(prompt.shape[1]))
    drawn = []
    if with_cache:
        cache = empty_cache(net, len(prompt), length, jnp.result_type(float, *jax.tree.leaves(params)))
        cache, _ = lax.scan(read, cache, jnp.arange(prompt.shape[1] - 1))
        (window, _), ids = lax.scan(draw_by_cache, (window, cache), keys[:with_cache])
        drawn.append(ids)
    if with_cache < count:
        drawn.append(lax.scan(draw_by_window, window, keys[with_cache:])[1])
    return jnp.concatenate(drawn).T


class Window(NamedTuple):
    """The last ids of N texts, in the first columns of (N, length)."""

    ids: Int[Array, "N length"]
    known: Int[Array, ""]  # the number of these columns

    def position(self, number: Int[Array, ""]) -> Position:
        """Returns the position of this number."""
        return Position(number, lax.dynamic_slice_in_dim(self.ids, number, 1, axis=1))
