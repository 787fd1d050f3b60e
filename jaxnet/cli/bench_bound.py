"""A lower bound of a training step: its matrix products alone, by the fastest BLAS library that is installed.

Each affine layer computes x W in the forward pass; x.T d, the gradient of its weights, and, except in the first layer,
d W.T, the gradient of its inputs, in the backward pass. The products are computed one after the other, because each
depends on the one before it. Nothing else is computed: no gathering of rows, no addition, no update.
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

from jaxnet.cli.bench_timing import StepTimer

Multiply = Callable[[int], object]  # computes all products this number of times
Operands = list[tuple[np.ndarray, np.ndarray]]


class Bound:
    """Timers of a step's matrix products, one for each library."""

    def __init__(self, multipliers: dict[str, Multiply], seconds: float) -> None:
        """Compiles the products; `seconds` is the approximate duration of a measurement."""
        self.timers = {library: StepTimer(multiply, seconds) for library, multiply in multipliers.items()}

    def measure(self) -> None:
        """Measures one round of every library."""
        for timer in self.timers.values():
            timer.measure()

    @property
    def microseconds(self) -> list[float]:
        """Microseconds of the fastest library in each round."""
        return [min(times) for times in zip(*(t.microseconds for t in self.timers.values()), strict=True)]

    @property
    def fastest(self) -> str:
        """The library with the fastest round."""
        return min(self.timers, key=lambda library: min(self.timers[library].microseconds))


def multipliers(sizes: tuple[int, ...], batch_size: int, threads: int, *, backward: bool = True) -> dict[str, Multiply]:
    """Returns the products by library: NumPy's BLAS, PyTorch's if it is installed, and XLA in two memory layouts."""
    products = operands(sizes, batch_size, backward)
    by_library = {f"numpy, {n} thread{'s'[: n - 1]}": multiply_numpy(products, n) for n in sorted({1, threads})}
    with suppress(ModuleNotFoundError):
        by_library["torch"] = multiply_torch(products, threads)
    transposed = [(b.T, a.T) for a, b in operands(sizes, batch_size, backward, order="F")]
    return by_library | {"xla": multiply_xla(products), "xla, transposed": multiply_xla(transposed)}


def operands(sizes: tuple[int, ...], batch_size: int, backward: bool, order: Literal["C", "F"] = "C") -> Operands:
    """Returns the two float32 factors of each product, from x (B, D), W (D, M) and d (B, M) of each layer.

    Some are transposed views. Order C stores matrices by rows, order F by columns.
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape, dtype=np.float32), order=order)

    layers = [(draw(batch_size, D), draw(D, M), draw(batch_size, M)) for D, M in pairwise(sizes)]
    products = [(x, W) for x, W, _ in layers]
    if backward:
        products += [(x.T, d) for x, _, d in layers] + [(d, W.T) for _, W, d in layers[1:]]
    return products


def multiply_numpy(products: Operands, threads: int) -> Multiply:
    """Returns the products in NumPy, with this number of threads."""
    with_outputs = [(a, b, np.empty((len(a), b.shape[1]), np.float32)) for a, b in products]
    controller = ThreadpoolController()

    def multiply(times: int) -> None:
        with controller.limit(limits=threads, user_api="blas"):
            for _ in range(times):
                for a, b, out in with_outputs:
                    np.matmul(a, b, out=out)

    return multiply


def multiply_torch(products: Operands, threads: int) -> Multiply:
    """Returns the products in PyTorch, with this number of threads."""
    import torch

    torch.set_num_threads(threads)
    with_outputs = [(torch.from_numpy(a), torch.from_numpy(b), torch.empty(len(a), b.shape[1])) for a, b in products]

    def multiply(times: int) -> None:
        for _ in range(times):
            for a, b, out in with_outputs:
                torch.mm(a, b, out=out)

    return multiply


def multiply_xla(products: Operands) -> Multiply:
    """Returns the products in one compiled loop. A transposed factor is contracted along its other axis.

    In each product one element of the left factor is set to the loop's count, and depends on the product before.
    Otherwise XLA would move constant products out of the loop and run independent ones in parallel.
    """
    stored = [a if a.flags.c_contiguous else a.T for pair in products for a in pair]
    addresses = [a.ctypes.data for a in stored]
    indices = [addresses.index(address) for address in addresses]  # a factor of two products is passed once
    pairs = list(zip(indices[::2], indices[1::2], strict=True))
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

    factors = jax.device_put({index: stored[index] for index in set(indices)})
    return lambda times: jax.block_until_ready(run(factors, times))  # type: ignore[no-untyped-call]
