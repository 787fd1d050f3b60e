"""A lower bound of a training step: its matrix products alone, by the fastest library that is installed.

The products follow each other, as each depends on the one before it. A convolution is a product of windows; libraries
that are good at it never have all windows in memory, so here a block of rows that fits a cache is multiplied as often
as there are blocks. The convolutions of PyTorch and XLA are measured as well: the fastest way counts.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from threadpoolctl import ThreadpoolController

from jaxnet.cli.bench.products import Convolution, Product
from jaxnet.cli.bench.timing import Run

BLOCK_BYTES = 2**20  # of the operands of a block
Order = Literal["C", "F"]  # by rows, or by columns


class Multiplication(NamedTuple):
    """Float32 factors of two axes, or with the axis of a batch before them, and how often they are multiplied."""

    a: np.ndarray
    b: np.ndarray
    times: int
    result: Literal["y", "dW", "dx"]
    layer: int  # the position of its product in the network
    convolution: Convolution | None  # whose windows it multiplies

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return (*self.a.shape[:-1], self.b.shape[-1])


def multipliers(products: list[Product], threads: int, *, backward: bool = True) -> dict[str, Run]:
    """Returns the products by library: NumPy's BLAS, PyTorch's if it is installed, and XLA in two memory layouts.

    Where there are convolutions, also those of PyTorch in two memory layouts, and of XLA with the channels last.
    """
    by_rows, by_columns = (multiplications(products, backward, order) for order in ("C", "F"))
    ways = {f"numpy, {n} thread{'s'[: n - 1]}": multiply_numpy(by_rows, n) for n in sorted({1, threads})}
    has_convolutions = any(product.convolution for product in products)
    with suppress(ModuleNotFoundError):
        ways["torch"] = multiply_torch(by_rows, threads)
        if has_convolutions:
            ways["torch, conv2d"] = multiply_torch(by_rows, threads, convolve="contiguous_format")
            ways["torch, conv2d, channels last"] = multiply_torch(by_rows, threads, convolve="channels_last")
    transposed = [m._replace(a=m.b.swapaxes(-1, -2), b=m.a.swapaxes(-1, -2)) for m in by_columns]
    ways |= {"xla": multiply_xla(by_rows), "xla, transposed": multiply_xla(transposed)}
    return ways | ({"xla, convolutions": multiply_xla(by_rows, convolve=True)} if has_convolutions else {})


def multiplications(products: list[Product], backward: bool, order: Order = "C") -> list[Multiplication]:
    """Returns the multiplications of a step: forward from the first layer, backward from the last one.

    x (rows, inner), W (inner, columns) and dout (rows, columns) are stored by rows, C, or columns, F. Each is a factor
    of two products, as it is in a step.
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        matrices = rng.standard_normal(shape if order == "C" else (*shape[:-2], shape[-1], shape[-2]), np.float32)
        return matrices if order == "C" else matrices.swapaxes(-1, -2)

    forward, gradients = list[Multiplication](), list[Multiplication]()
    for i, (batch, rows, inner, columns, needs_dx, convolution) in enumerate(products):
        times = number_of_blocks(rows, inner, columns) if convolution else 1
        rows //= times
        x, W, dout = (
            draw(*((batch,) if batch > 1 else ()), *shape)
            for shape in ((rows, inner), (inner, columns), (rows, columns))
        )
        forward.append(Multiplication(x, W, times, "y", i, convolution))
        dW = Multiplication(x.swapaxes(-1, -2), dout, times, "dW", i, convolution)
        dx = Multiplication(dout, W.swapaxes(-1, -2), times, "dx", i, convolution)
        gradients = [dW, *([dx] if needs_dx else []), *gradients]
    return forward + gradients if backward else forward


def number_of_blocks(rows: int, inner: int, columns: int) -> int:
    """Returns the least divisor of `rows` that makes blocks whose operands fit the cache; one row at least."""

    def fits(block: int) -> bool:
        return np.float32().itemsize * (block * inner + inner * columns + block * columns) <= BLOCK_BYTES

    return next(count for count in range(1, rows + 1) if rows % count == 0 and (fits(rows // count) or count == rows))


def repeat(calls: list[Callable[[], object]]) -> Run:
    """Returns a loop over calls."""

    def run(times: int) -> None:
        for _ in range(times):
            for call in calls:
                call()

    return run


def multiply_numpy(steps: list[Multiplication], threads: int) -> Run:
    """Returns the products in NumPy, with this number of threads."""
    calls: list[Callable[[], object]] = []
    for step in steps:
        calls += [partial(np.matmul, step.a, step.b, out=np.empty(step.shape, np.float32))] * step.times
    return ThreadpoolController().wrap(limits=threads, user_api="blas")(repeat(calls))


def multiply_torch(steps: list[Multiplication], threads: int, *, convolve: str = "") -> Run:
    """Returns the products in PyTorch, with its own convolutions if `convolve` names their memory format."""
    import torch

    torch.set_num_threads(threads)
    calls: list[Callable[[], object]] = []
    for step in steps:
        a, b = torch.from_numpy(step.a), torch.from_numpy(step.b)
        multiply = torch.mm if a.ndim == 2 else torch.bmm
        if not (convolve and step.convolution):
            calls += [partial(multiply, a, b, out=torch.empty(step.shape))] * step.times
    if convolve:
        calls += _torch_convolutions(steps, getattr(torch, convolve))
    return repeat(calls)


def _torch_convolutions(steps: list[Multiplication], memory_format: Any) -> list[Callable[[], object]]:
    """Returns a call for the forward pass of each convolution, and one for both gradients."""
    import torch

    computed = {(step.layer, step.result) for step in steps}
    calls: list[Callable[[], object]] = []
    for step in steps:
        if step.convolution is None or step.result == "dx":
            continue
        (N, C, H, W), filters, size, stride, padding = step.convolution
        x, weights = (torch.randn(*s).to(memory_format=memory_format) for s in ((N, C, H, W), (filters, C, size, size)))
        if step.result == "y":
            calls.append(partial(torch.conv2d, x, weights, None, stride, padding))
            continue
        dout = torch.randn_like(torch.conv2d(x, weights, None, stride, padding))  # in the same memory format
        window = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1  # [1, 1]: no dilation; 1 group
        wanted = (step.layer, "dx") in computed, True, False  # dx, dW, db
        calls.append(partial(torch.ops.aten.convolution_backward, dout, x, weights, None, *window, wanted))
    return calls


class Operation(NamedTuple):
    """A function of two arrays, by their names, and how often it is computed."""

    left: str
    right: str
    function: Callable[[Any, Any], Any]
    times: int


def multiply_xla(steps: list[Multiplication], *, convolve: bool = False) -> Run:
    """Returns the products in one compiled loop, with XLA's convolutions for y and dx if wanted.

    An element of each left factor depends on the loop's count and on the result before. Otherwise XLA would move
    constant products out of the loop and run independent ones in parallel.
    """
    arrays, operations = dict[str, np.ndarray](), list[Operation]()
    for step in steps:
        convolution = step.convolution
        can_convolve = convolution is not None and convolution.stride == 1 and step.result != "dW"
        make = _xla_convolution if convolve and can_convolve else _xla_product
        factors, operation = make(step)
        arrays |= factors
        operations.append(operation)

    @jax.jit
    def run(arrays: Any, times: Any) -> Any:
        def compute_once(count: Any, carry: Any) -> Any:
            arrays, outputs, last = dict(carry[0]), [], jnp.float32(0)
            for (left, right, function, repeats), output in zip(operations, carry[1], strict=True):

                def compute(i: Any, carry: Any, function: Any = function, b: Any = arrays[right]) -> Any:
                    a = carry[0].at[(0,) * carry[0].ndim].set(count + i + 0 * carry[2])
                    y = function(a, b)
                    return a, y, y[(0,) * y.ndim]

                start = arrays[left], output, last
                arrays[left], y, last = compute(0, start) if repeats == 1 else lax.fori_loop(0, repeats, compute, start)
                outputs.append(y)
            return arrays, outputs

        shapes = [jax.eval_shape(op.function, arrays[op.left], arrays[op.right]) for op in operations]
        return lax.fori_loop(0, times, compute_once, (arrays, [jnp.zeros(s.shape, s.dtype) for s in shapes]))

    on_device = jax.device_put(arrays)
    return lambda times: jax.block_until_ready(run(on_device, times))  # type: ignore[no-untyped-call]


def _xla_product(step: Multiplication) -> tuple[dict[str, np.ndarray], Operation]:
    """Returns the arrays and the operation of a product. A transposed factor is contracted along its other axis."""
    last, factors = step.a.ndim - 1, (step.a, step.b)
    left, right = (str(factor.ctypes.data) for factor in factors)  # by address, a factor of two products is passed once
    a_by_rows, b_by_rows = (factor.flags.c_contiguous for factor in factors)
    a = step.a if a_by_rows else step.a.swapaxes(-1, -2)
    b = step.b if b_by_rows else step.b.swapaxes(-1, -2)
    contracted = (last if a_by_rows else last - 1,), (last - 1 if b_by_rows else last,)
    batch = tuple(range(last - 1))
    function = partial(lax.dot_general, dimension_numbers=(contracted, (batch, batch)))
    return {left: a, right: b}, Operation(left, right, function, step.times)


def _xla_convolution(step: Multiplication) -> tuple[dict[str, np.ndarray], Operation]:
    """Returns the arrays and the operation of a convolution for y, or of dout with the turned weights for dx."""
    assert step.convolution is not None
    (N, C, H, W), filters, size, _, padding = step.convolution
    x_shape, W_shape = (N, H, W, C), (size, size, C, filters)
    if step.result == "dx":
        added = 2 * padding - size + 1  # to each side of the image, by the forward pass
        x_shape, W_shape, padding = (N, H + added, W + added, filters), (size, size, filters, C), size - 1 - padding
    rng = np.random.default_rng(0)
    left, right = (f"{factor} of layer {step.layer} for {step.result}" for factor in ("input", "weights"))
    x, weights = (rng.standard_normal(shape, np.float32) for shape in (x_shape, W_shape))
    function = partial(
        lax.conv_general_dilated,
        window_strides=(1, 1), padding=[(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return {left: x, right: weights}, Operation(left, right, function, 1)
