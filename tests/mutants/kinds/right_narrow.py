"""Right kernels that accept only float32, layers with float32 buffers, and other layers that compute in float32."""

import ctypes

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right
from mutants.kinds.right_operations import OPERATIONS, cross_entropy, cross_entropy_backward

for label in ("layer_norm", "attention", "convolution", "lstm_cell", "log_sum_exp"):
    fwd, bwd, shapes, _ = OPERATIONS[label]

    @right(
        f"float32-only/{label}-asserts",
        f"{label} as a kernel: an assert refuses all but contiguous float32, in both passes",
        step=3e-2,
    )
    def check_only(seed, fwd=fwd, bwd=bwd, shapes=shapes):
        def expect(*arrays):
            for array in arrays:
                assert array.dtype == np.float32, "expected float32"
                assert array.flags.c_contiguous, "expected a contiguous array"

        def forward(*inputs):
            expect(*inputs)
            return fwd(*inputs)

        def backward(dout, cache):
            expect(dout)
            return bwd(dout, cache)

        draw = Draw(seed)
        return check_layer((forward, backward), *(draw(*shape).astype(np.float32) for shape in shapes))


@right(
    "float32-only/through-ctypes-pointers", "values are passed by C pointers to float, so float64 is refused", step=3e-2
)
def pointers(seed):
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")

    def through(array):
        pointer.from_param(array)  # raises where it is not contiguous float32
        address = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return np.array(address[: array.size], np.float32).reshape(array.shape)

    def backward(dout, y):
        return through(dout) * (1 - y * y)

    def forward(x):
        y = np.tanh(through(x))
        return y, y

    return check_layer((forward, backward), Draw(seed)(4, 5).astype(np.float32))


@right("float32-only/typed-out-buffers", "ufuncs write into a layer's own float32 buffers, which cannot store float64",
       step=3e-2)  # fmt: skip
def out_buffers(seed):
    class Scale:
        def __init__(self, w, n):
            self.w, self.y, self.dw = w, np.empty((n, w.size), np.float32), np.zeros_like(w)

        def forward(self, x):
            self.x = x
            np.multiply(x, self.w, out=self.y)
            np.tanh(self.y, out=self.y)
            return self.y.copy()

        def backward(self, dout):
            d = dout * (1 - self.y * self.y)
            np.sum(d * self.x, axis=0, out=self.dw)
            return d * self.w

    draw = Draw(seed)
    return check_layer(Scale(draw(5).astype(np.float32), 6), draw(6, 5).astype(np.float32))


@right("float32-only/packed-into-bytes", "a kernel that reads a buffer of bytes as float32", step=3e-2)
def packed(seed):
    def read(x):
        return np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)

    return check_layer(
        (lambda x: (np.sin(read(x)), x), lambda dout, x: read(dout) * np.cos(read(x))),
        Draw(seed)(4, 3).astype(np.float32),
    )


class Owner:
    """y = relu(x W + b), in float32 buffers that are allocated once."""

    def __init__(self, draw):
        self.W, self.b = draw(5, 4).astype(np.float32), draw(4).astype(np.float32)
        self.dW, self.db = np.zeros((5, 4), np.float32), np.zeros(4, np.float32)
        self.x = np.zeros((6, 5), np.float32)

    def forward(self, x):
        self.x[...] = x
        self.z = self.x @ self.W + self.b
        return np.maximum(self.z, 0)

    def backward(self, dout):
        d = (dout * (self.z > 0)).astype(np.float32)
        self.dW[...], self.db[...] = self.x.T @ d, d.sum(axis=0)
        return d @ self.W.T


for dtype in ("float32", "float64"):

    @right(f"float32-buffers/input-and-gradients-{dtype}", f"a layer that copies {dtype} inputs into float32 buffers",
           step=3e-2)  # fmt: skip
    def own_buffers(seed, dtype=dtype):
        draw = Draw(seed)
        return check_layer(Owner(draw), draw(6, 5).astype(dtype))

    @right(
        f"float32-buffers/a-table-looked-up-{dtype}",
        "a float32 table of embeddings, summed with float inputs",
        step=3e-2,
    )
    def table(seed, dtype=dtype):
        draw = Draw(seed)

        class Embedding:
            def __init__(self):
                self.W = draw(7, 4).astype(np.float32)

            def forward(self, ids, x):
                self.ids = ids
                return self.W[ids] + x.astype(np.float32)

            def backward(self, dout):
                self.dW = np.zeros_like(self.W)
                np.add.at(self.dW, self.ids, dout.astype(np.float32))
                return dout

        return check_layer(Embedding(), draw.rng.integers(0, 7, 5), draw(5, 4).astype(dtype))


@right("float32-inside/jax-casts-to-float32", "JAX computes in float32 and returns the dtype of its input",
       step=3e-2, never="kink")  # fmt: skip
def jax_casts(seed):
    def norm(x, g):
        v = x.astype(jnp.float32)
        return (v * jax.lax.rsqrt((v * v).mean(-1, keepdims=True) + 1e-6) * g.astype(jnp.float32)).astype(x.dtype)

    draw = Draw(seed)
    return check_function(norm, draw(4, 6), draw(6))


@right("float32-inside/accumulators", "float64 arrays, summed in a float32 accumulator", step=3e-2, never="kink")
def accumulator(seed):
    return check_function(
        lambda x: np.sum(np.sin(x), dtype=np.float32), Draw(seed)(50), gradient=lambda x: np.cos(x).astype(np.float32)
    )


@right("float32-inside/relu-network", "a two-layer ReLU network that computes in float32 for float64 arrays", step=3e-2)
def network(seed):
    draw = Draw(seed)

    def forward(x, w, v):
        x, w, v = (a.astype(np.float32) for a in (x, w, v))
        h = np.maximum(x @ w, 0)
        return h @ v, (x, w, v, h)

    def backward(dout, cache):
        x, w, v, h = cache
        d = dout.astype(np.float32)
        dh = d @ v.T * (h > 0)
        return dh @ w.T, x.T @ dh, h.T @ d

    return check_layer((forward, backward), draw(6, 5), draw(5, 7), draw(7, 3))


@right(
    "float32-inside/cross-entropy-of-float32-logits",
    "the loss of float32 logits, with 8-bit integer labels",
    step=3e-2,
)
def small_labels(seed):
    draw = Draw(seed)
    return check_layer(
        (cross_entropy, cross_entropy_backward), draw(6, 5).astype(np.float32), draw.labels(6, 5).astype(np.uint8)
    )
