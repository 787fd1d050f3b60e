"""Layers that compute in float32 for inputs of every dtype, with one term of the gradient off by 1 % to 10 %."""

import inspect

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong

F = np.float32
EPS = F(1e-5)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_back(p, dp):
    return p * (dp - (dp * p).sum(-1, keepdims=True))


def rmsnorm(x, g):
    return g * x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def rmsnorm_back(k, d, x, g):
    s = np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    return (d * g - k * x * (d * g * x).mean(-1, keepdims=True) / s**2) / s, (d * x / s).sum(0)


def layernorm(x, g, b):
    c = x - x.mean(-1, keepdims=True)
    return g * c / np.sqrt((c * c).mean(-1, keepdims=True) + EPS) + b


def layernorm_back(k, d, x, g, b):
    c = x - x.mean(-1, keepdims=True)
    s = np.sqrt((c * c).mean(-1, keepdims=True) + EPS)
    y, dy = c / s, d * g
    return (dy - dy.mean(-1, keepdims=True) - y * (dy * y).mean(-1, keepdims=True)) / s, k * (d * y).sum(0), d.sum(0)


def batchnorm(x, g):
    return g * (x - x.mean(0)) / np.sqrt(x.var(0) + EPS)


def batchnorm_back(k, d, x, g):
    s = np.sqrt(x.var(0) + EPS)
    y = (x - x.mean(0)) / s
    return g * (d - k * d.mean(0) - y * (d * y).mean(0)) / s, (d * y).sum(0)


def attention(q, k, v):
    return softmax(q @ k.T / np.sqrt(F(q.shape[-1]))) @ v


def attention_back(factor, d, q, k, v):
    scale = 1 / np.sqrt(F(q.shape[-1]))
    p = softmax(q @ k.T * scale)
    ds = softmax_back(p, d @ v.T) * scale
    return ds @ k, factor * ds.T @ q, p.T @ d


def conv(x, w):
    cols = sliding_window_view(x, w.shape[1:]).reshape(-1, w[0].size)
    return cols @ w.reshape(len(w), -1).T


def conv_back(k, d, x, w):
    windows = sliding_window_view(x, w.shape[1:])
    dw = k * (d.T @ windows.reshape(-1, w[0].size)).reshape(w.shape)
    dx, dcols = np.zeros_like(x), (d @ w.reshape(len(w), -1)).reshape(windows.shape)
    for i in range(windows.shape[0]):
        for j in range(windows.shape[1]):
            dx[i : i + w.shape[1], j : j + w.shape[2]] += dcols[i, j]
    return dx, dw


def gelu(x):
    return F(0.5) * x * (1 + np.tanh(F(0.79788456) * (x + F(0.044715) * x**3)))


def gelu_back(k, d, x):
    t = np.tanh(F(0.79788456) * (x + F(0.044715) * x**3))
    return (d * (F(0.5) * (1 + t) + k * F(0.5) * x * (1 - t * t) * F(0.79788456) * (1 + F(0.134145) * x * x)),)


def logsumexp(x):
    m = x.max(-1)
    return m + np.log(np.exp(x - m[:, None]).sum(-1))


def softmax_layer_back(k, d, x):
    p = softmax(x)
    return (p * (d - k * (d * p).sum(-1, keepdims=True)),)


def chain(x, a, b):
    return np.tanh(x @ a) @ b


def chain_back(k, d, x, a, b):
    h = np.tanh(x @ a)
    da = (d @ b.T) * (1 - h * h)
    return da @ a.T, x.T @ da, k * h.T @ d


def cross_entropy(x):
    return -np.log(softmax(x)[np.arange(len(x)), 0]) * F(1 / len(x))


def cross_entropy_back(k, d, x):
    p = softmax(x)
    p[:, 0] -= 1
    return (k * p * d[:, None] * F(1 / len(x)),)


def swiglu(x, a, b):
    return x @ a / (1 + np.exp(-(x @ a))) * (x @ b)


def swiglu_back(k, d, x, a, b):
    z, u = x @ a, x @ b
    s = 1 / (1 + np.exp(-z))
    dz, du = d * u * (s + k * z * s * (1 - s)), d * z * s
    return dz @ a.T + du @ b.T, x.T @ dz, x.T @ du


OPERATIONS = {  # name: (forward, backward, factor of one of its terms, what is wrong, shapes for sizes n, d, m)
    "rmsnorm": (rmsnorm, rmsnorm_back, 1.1, "the projection is 10 % too large", lambda n, d, m: ((n, d), (d,))),
    "layernorm": (layernorm, layernorm_back, 1.01, "dgamma is 1 % too large", lambda n, d, m: ((n, d), (d,), (d,))),
    "batchnorm": (batchnorm, batchnorm_back, 1.1, "the mean term is 10 % too large", lambda n, d, m: ((n, d), (d,))),
    "softmax": (softmax, softmax_layer_back, 0.9, "the sum of p dp is 10 % too small", lambda n, d, m: ((n, d),)),
    "attention": (attention, attention_back, 1.01, "dk is 1 % too large", lambda n, d, m: ((n, d), (m, d), (m, d))),
    "conv-im2col": (conv, conv_back, 1.01, "dw is 1 % too large", lambda n, d, m: ((n + 2, d + 2), (m, 3, 2))),
    "gelu": (gelu, gelu_back, 1.05, "the inner derivative is 5 % too large", lambda n, d, m: ((n, d),)),
    "logsumexp": (logsumexp, lambda k, d, x: (k * d[:, None] * softmax(x),), 1.01, "dx is 1 % too large",
                  lambda n, d, m: ((n, d),)),
    "cumsum": (lambda x: np.cumsum(x, -1, dtype=F) ** 2,
               lambda k, d, x: ((k * 2 * d * np.cumsum(x, -1))[:, ::-1].cumsum(-1)[:, ::-1],),
               1.01, "dx is 1 % too large",
               lambda n, d, m: ((n, d),)),
    "matmul-chain": (chain, chain_back, 1.01, "the last weight's gradient is 1 % too large",
                     lambda n, d, m: ((n, d), (d, m), (m, 4))),
    "cross-entropy": (cross_entropy, cross_entropy_back, 0.99, "dx is 1 % too small", lambda n, d, m: ((n, d),)),
    "swiglu": (swiglu, swiglu_back, 1.05, "z s' is 5 % too large", lambda n, d, m: ((n, d), (d, m), (d, m))),
}  # fmt: skip


def inputs_of(shapes, seed, dtype):
    draw = Draw(seed)
    return [draw(*shape).astype(dtype) for shape in shapes(*draw.sizes(3))]


def register_inside(name, dtype):
    """Registers an operation that casts to float32 and back."""
    forward, backward, factor, what, shapes = OPERATIONS[name]

    def run(seed):
        inputs = inputs_of(shapes, seed, dtype)

        def f(*args):
            return forward(*(a.astype(F) for a in args)).astype(args[0].dtype)

        def gradient(*args):
            *args, dout = args
            gradients = backward(F(factor), dout.astype(F), *(a.astype(F) for a in args))
            return tuple(g.astype(args[0].dtype) for g in gradients)

        def pair_forward(*args):
            return f(*args), args

        def pair_backward(dout, cache):
            return gradient(*cache, dout)

        pair_forward.__signature__ = signature_of(forward, len(inputs))
        return check_layer((pair_forward, pair_backward), *inputs)

    wrong(
        f"float32/{name}-{np.dtype(dtype)}",
        f"Computes in float32, given {np.dtype(dtype)}; {what}.",
        off=7e-3,
        step=0.04,
        never="kink",
    )(run)


def signature_of(function, count):
    """Returns a signature with the parameters of `function`."""
    parameters = list(inspect.signature(function).parameters.values())[:count]
    return inspect.Signature(parameters)


for _name in OPERATIONS:
    for _dtype in (np.float32, np.float64):
        register_inside(_name, _dtype)


@wrong(
    "float32/scalar-loss-of-float64-arrays",
    "A mean squared error that is summed in float32; its gradient is 2 % too large.",
    off=1e-2,
    step=0.04,
)
def _(seed):
    draw = Draw(seed)

    def loss(x, t):
        return float(np.mean((x.astype(F) - t.astype(F)) ** 2))

    def gradient(x, t):
        d = 2.04 * (x - t) / x.size
        return d, -d

    n, d = draw.sizes(2)
    return check_function(loss, draw(n, d), draw(n, d), gradient=gradient)
