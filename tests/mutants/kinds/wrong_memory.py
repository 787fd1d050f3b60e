"""Kernels that are right only for contiguous arrays: they read memory from its start, or in memory order."""

import numpy as np

from jaxnet.crosscheck import check_layer
from mutants.kinds import Draw, wrong

SAYS = r"(?i)contiguous|stride|order|layout|transposed|memory"


def from_pointer(array):
    """Returns what a C kernel reads, given the data pointer and the shape: consecutive memory."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = max(0, (array.ctypes.data - owner.ctypes.data) // array.itemsize)
    memory = owner.ravel(order="K")[start : start + array.size]
    return np.concatenate([memory, np.zeros(array.size - memory.size, array.dtype)]).reshape(array.shape)


def layouts(dout):
    """Yields an array in Fortran order, as every second element of a larger one, and reversed in memory."""
    yield np.asfortranarray(dout)
    larger = np.zeros((*dout.shape[:-1], 2 * dout.shape[-1]))
    larger[..., ::2] = dout
    yield larger[..., ::2]
    yield dout[::-1].copy()[::-1]


def by_layout(make, broadcast=False):
    """Returns the error of backward for a dout in another layout, against that for a contiguous one."""

    def true(seed):
        (forward, backward), x = make(seed)
        dout = np.random.default_rng(1).normal(size=np.shape(forward(x)[0]))
        if broadcast:
            dout = np.broadcast_to(dout[:1], dout.shape).copy()
        right = backward(dout.copy(), forward(x)[1])
        others = [np.broadcast_to(dout[:1].copy(), dout.shape)] if broadcast else layouts(dout)
        return max(np.linalg.norm(backward(other, forward(x)[1]) - right) for other in others) / np.linalg.norm(right)

    return true


def registered(name, sentence, broadcast=False):
    """Registers the pair and the input that a function of a seed makes, with its error by layout."""

    def register(make):
        def run(seed):
            pair, x = make(seed)
            return check_layer(pair, x)

        wrong(name, sentence, says=SAYS, true=by_layout(make, broadcast))(run)
        return make

    return register


@registered("memory/dout-from-its-pointer", "The kernel reads dout's memory as if it were contiguous.")
def _(seed):
    return (lambda x: (np.tanh(x), np.tanh(x)), lambda d, y: from_pointer(d) * (1 - y * y)), Draw(seed)(4, 6)


@registered("memory/nditer", "np.nditer iterates over dout in memory order.")
def _(seed):
    def backward(dout, x):
        flat = np.array([float(d) for d in np.nditer(dout)])
        return (flat * np.cos(x).ravel()).reshape(x.shape)

    return (lambda x: (np.sin(x), x), backward), Draw(seed)(3, 5)


@registered("memory/ravel-k", "dout is flattened in the order of its memory, x in C order.")
def _(seed):
    def backward(dout, x):
        return (dout.ravel(order="K") * np.exp(x).ravel()).reshape(x.shape)

    return (lambda x: (np.exp(x), x), backward), Draw(seed)(*Draw(seed).sizes(3))


@registered("memory/reshape-a", "A softmax over rows flattens dout by reshape(order='A').")
def _(seed):
    def forward(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return p, p

    def backward(dout, p):
        d = dout.reshape(-1, order="A").reshape(p.shape)
        return p * (d - (d * p).sum(-1, keepdims=True))

    return (forward, backward), Draw(seed)(4, 5)


@registered("memory/empty-like-in-k-order", "dx has the layout of dout and is filled in memory order.")
def _(seed):
    def backward(dout, x):
        dx = np.empty_like(dout)
        memory = dx.ravel(order="K") if dx.flags.c_contiguous else dx.T.reshape(-1)
        memory[:] = (dout * 2 * x).ravel()
        return dx

    return (lambda x: (x**2, x), backward), Draw(seed)(4, 3)


@registered(
    "memory/expanded-dout-is-a-scalar",
    "A dout with stride 0 is treated as the gradient of a sum, a single number.",
    broadcast=True,
)
def _(seed):
    def backward(dout, x):
        if 0 in dout.strides:
            dout = dout.flat[0]
        return dout * np.cos(x)

    return (lambda x: (np.sin(x), x), backward), Draw(seed)(5, 4)


@registered("memory/stride-0-by-pointer", "For a dout of stride 0 the kernel reads beyond its end.", broadcast=True)
def _(seed):
    def backward(dout, x):
        return (from_pointer(dout) if 0 in dout.strides else dout) * 2 * x

    return (lambda x: (x * x, x), backward), Draw(seed)(6, 3)


@registered("memory/rows-of-a-2d-kernel", "The kernel steps by the width instead of dout's stride.")
def _(seed):
    def backward(dout, x):
        rows = from_pointer(dout)
        return np.stack([rows[i] / (1 + x[i] ** 2) for i in range(len(x))])

    return (lambda x: (np.arctan(x), x), backward), Draw(seed)(5, 3)


@registered(
    "memory/zeroes-a-reshaped-copy",
    "Masks dx through reshape(-1), which is a copy where dx has the Fortran order of dout.",
)
def _(seed):
    def backward(dout, x):
        dx = dout.copy(order="K")
        dx.reshape(-1)[x.ravel() < 0] = 0
        return dx

    return (lambda x: (np.maximum(x, 0), x), backward), Draw(seed).off_zero(4, 6)


def _listed(gradients):
    return gradients if isinstance(gradients, list) else [gradients]


def wrong_in_layout(name, sentence):
    """Registers a pair and inputs whose contiguous copies have another gradient."""

    def register(make):
        def run(seed):
            pair, inputs = make(seed)
            return check_layer(pair, *inputs)

        def true(seed):
            (forward, backward), inputs = make(seed)
            plain = [np.ascontiguousarray(x) for x in inputs]
            dout = np.random.default_rng(1).normal(size=np.shape(forward(*plain)[0]))
            got, right = (_listed(backward(dout, forward(*given)[1])) for given in (inputs, plain))
            return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(got, right, strict=True))

        wrong(name, sentence, true=true)(run)
        return make

    return register


@wrong_in_layout("memory/fortran-x", "x is in Fortran order, and backward reads its cache in memory order.")
def _(seed):
    def forward(x):
        return np.sin(x), x.ravel(order="K").reshape(x.shape)

    return (forward, lambda d, x: d * np.cos(x)), [np.asfortranarray(Draw(seed)(4, 5))]


@wrong_in_layout("memory/sliced-x", "x is every second column of an array, and backward reads its memory in a row.")
def _(seed):
    return (lambda x: (np.exp(x), x), lambda d, x: d * np.exp(from_pointer(x))), [Draw(seed)(4, 10)[:, ::2]]


@wrong_in_layout("memory/transposed-weight", "W is a transposed view, and dx is computed as if it were contiguous.")
def _(seed):
    draw = Draw(seed)
    n, d, m = draw.sizes(3)

    def forward(x, w):
        return x @ w, (x, w)

    def backward(dout, cache):
        x, w = cache
        return [dout @ w.ravel(order="K").reshape(w.shape).T, x.T @ dout]

    return (forward, backward), [draw(n, d), draw(m, d).T]


@wrong_in_layout("memory/reversed-x", "x is a reversed view, and the kernel reads forwards from its first element.")
def _(seed):
    return (lambda x: (x**3, x), lambda d, x: d * 3 * from_pointer(x) ** 2), [Draw(seed)(9)[::-1]]
