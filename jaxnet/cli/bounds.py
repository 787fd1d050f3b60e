"""The least that a training step can take: its matrix products alone, by the fastest BLAS at hand.

A step on an affine network multiplies x W in each layer forward; backward x' d for each layer's weights and d W' for
each layer's inputs but the first's; one product after the other, since each needs what came before it. Rows are not
picked, nothing is added, compared or updated.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from threadpoolctl import ThreadpoolController

Multiply = Callable[[int], None]  # all the products, that many times
Operands = list[tuple[np.ndarray, np.ndarray]]


def multipliers(sizes: tuple[int, ...], batch_size: int, threads: int, *, backward: bool = True) -> dict[str, Multiply]:
    """By the name of what multiplies: NumPy's BLAS, PyTorch's where it is installed, and XLA's in both layouts."""
    products = operands(sizes, batch_size, backward)
    found = {f"numpy, {n} thread{'s'[: n - 1]}": by_numpy(products, n) for n in sorted({1, threads})}
    with suppress(ModuleNotFoundError):  # one BLAS less to choose from
        found["torch"] = by_torch(products, threads)
    columns = [(b.T, a.T) for a, b in operands(sizes, batch_size, backward, order="F")]
    return found | {"xla": by_xla(products), "xla, transposed": by_xla(columns)}


def operands(sizes: tuple[int, ...], batch_size: int, backward: bool, order: Literal["C", "F"] = "C") -> Operands:
    """The two factors of each product, float32: x (B, D), W (D, M) and d (B, M), some of them seen transposed.

    They lie in memory by rows or, with order F, by columns: W as (M, D), activations as (features, batch).
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape, dtype=np.float32), order=order)

    layers = [(draw(batch_size, D), draw(D, M), draw(batch_size, M)) for D, M in pairwise(sizes)]
    products = [(x, W) for x, W, _ in layers]
    if backward:
        products += [(x.T, d) for x, _, d in layers] + [(d, W.T) for _, W, d in layers[1:]]
    return products


def by_numpy(products: Operands, threads: int) -> Multiply:
    """With so many threads of its BLAS."""
    filled = [(a, b, np.empty((len(a), b.shape[1]), np.float32)) for a, b in products]
    controller = ThreadpoolController()

    def multiply(times: int) -> None:
        with controller.limit(limits=threads, user_api="blas"):
            for _ in range(times):
                for a, b, out in filled:
                    np.matmul(a, b, out=out)

    return multiply


def by_torch(products: Operands, threads: int) -> Multiply:
    """PyTorch's BLAS, into arrays that are there."""
    import torch

    torch.set_num_threads(threads)
    filled = [(torch.from_numpy(a), torch.from_numpy(b), torch.empty(len(a), b.shape[1])) for a, b in products]

    def multiply(times: int) -> None:
        for _ in range(times):
            for a, b, out in filled:
                torch.mm(a, b, out=out)

    return multiply


def by_xla(products: Operands) -> Multiply:
    """In one compiled loop; a factor seen transposed is stored as it is and contracted along its other axis.

    In each product one element becomes the loop's count, in place, and waits for the product before: what did not
    change would be multiplied but once, and what did not wait would be multiplied beside what it needs.
    """
    stored = [a if a.flags.c_contiguous else a.T for pair in products for a in pair]
    addresses = [a.ctypes.data for a in stored]
    places = [addresses.index(address) for address in addresses]  # a factor of two products is one array
    pairs = list(zip(places[::2], places[1::2], strict=True))
    axes = [(int(a.flags.c_contiguous), int(not b.flags.c_contiguous)) for a, b in products]

    @jax.jit
    def run(distinct: Any, times: Any) -> Any:
        def once(count: Any, now: Any) -> Any:
            arrays, made, last = dict(now[0]), [], jnp.float32(0)
            for (left, right), (i, j) in zip(pairs, axes, strict=True):
                arrays[left] = arrays[left].at[0, 0].set(count + 0 * last)
                made.append(lax.dot_general(arrays[left], arrays[right], (((i,), (j,)), ((), ()))))
                last = made[-1][0, 0]
            return arrays, made

        return lax.fori_loop(
            0, times, once, (distinct, [jnp.zeros((len(a), b.shape[1]), a.dtype) for a, b in products])
        )

    distinct = jax.device_put({place: stored[place] for place in set(places)})

    def multiply(times: int) -> None:
        jax.tree.map(lambda a: a.block_until_ready(), run(distinct, times))

    return multiply
