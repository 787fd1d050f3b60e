"""A lower bound of a training step: its matrix products alone, by the fastest BLAS library that is installed.

Each affine layer computes x W in the forward pass; in the backward pass x.T d, the gradient of its weights, and, except
in the first layer, d W.T, that of its inputs. The products follow each other, as each depends on the one before it.
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

from jaxnet.cli.bench_timing import Run

Operands = list[tuple[np.ndarray, np.ndarray]]


def multipliers(sizes: tuple[int, ...], batch_size: int, threads: int, *, backward: bool = True) -> dict[str, Run]:
    """Returns the products by library: NumPy's BLAS, PyTorch's if it is installed, and XLA in two memory layouts."""
    products = operands(sizes, batch_size, backward)
    by_library = {f"numpy, {n} thread{'s'[: n - 1]}": multiply_numpy(products, n) for n in sorted({1, threads})}
    with suppress(ModuleNotFoundError):
        by_library["torch"] = multiply_torch(products, threads)
    transposed = [(b.T, a.T) for a, b in operands(sizes, batch_size, backward, order="F")]
    return by_library | {"xla": multiply_xla(products), "xla, transposed": multiply_xla(transposed)}


def operands(sizes: tuple[int, ...], batch_size: int, backward: bool, order: Literal["C", "F"] = "C") -> Operands:
    """Returns the float32 factors of each product, from x (B, D), W (D, M) and d (B, M) by rows, C, or columns, F."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape, dtype=np.float32), order=order)

    layers = [(draw(batch_size, D), draw(D, M), draw(batch_size, M)) for D, M in pairwise(sizes)]
    products = [(x, W) for x, W, _ in layers]
    if backward:
        products += [(x.T, d) for x, _, d in layers] + [(d, W.T) for _, W, d in layers[1:]]
    return products


def repeat(multiply: Callable[..., object], factors_and_outputs: list[tuple[Any, Any, Any]]) -> Run:
    """Returns a loop over products that are written into existing outputs."""

    def run(times: int) -> None:
        for _ in range(times):
            for a, b, out in factors_and_outputs:
                multiply(a, b, out=out)

    return run


def multiply_numpy(products: Operands, threads: int) -> Run:
    """Returns the products in NumPy, with this number of threads."""
    loop = repeat(np.matmul, [(a, b, np.empty((len(a), b.shape[1]), np.float32)) for a, b in products])
    return ThreadpoolController().wrap(limits=threads, user_api="blas")(loop)


def multiply_torch(products: Operands, threads: int) -> Run:
    """Returns the products in PyTorch, with this number of threads."""
    import torch

    torch.set_num_threads(threads)
    factors = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in products]
    return repeat(torch.mm, [(a, b, torch.empty(len(a), b.shape[1])) for a, b in factors])


def multiply_xla(products: Operands) -> Run:
    """Returns the products in one compiled loop. A transposed factor is contracted along its other axis.

    An element of each left factor depends on the loop's count and on the product before. Otherwise XLA would move
    constant products out of the loop and run independent ones in parallel.
    """
    pairs = [(a.ctypes.data, b.ctypes.data) for a, b in products]  # by address, a factor of two products is passed once
    stored = {a.ctypes.data: a if a.flags.c_contiguous else a.T for pair in products for a in pair}
    axes = [(int(a.flags.c_contiguous), int(not b.flags.c_contiguous)) for a, b in products]

    @jax.jit
    def run(factors: Any, times: Any) -> Any:
        def multiply_once(count: Any, carry: Any) -> Any:
            arrays, outputs, last = dict(carry[0]), [], jnp.float32(0)
            for (left, right), (i, j) in zip(pairs, axes, strict=True):
                arrays[left] = arrays[left].at[0, 0].set(count + 0 * last)
                outputs.append(lax.dot_general(arrays[left], arrays[right], (((i,), (j,)), ((), ()))))
                last = outputs[-1][0, 0]
            return arrays, outputs

        outputs = [jnp.zeros((len(a), b.shape[1]), a.dtype) for a, b in products]
        return lax.fori_loop(0, times, multiply_once, (factors, outputs))

    factors = jax.device_put(stored)
    return lambda times: jax.block_until_ready(run(factors, times))  # type: ignore[no-untyped-call]
