"""High curvature, large offsets, small rows and bad condition numbers, with wrong gradients."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, wrong

NOT_A_KINK = {"never": "kink", "off": 5e-3}


def lorenz(state, steps, h=0.01):
    """Returns the state after Euler steps, and the product of their Jacobians."""
    jacobian = np.eye(3)
    for _ in range(steps):
        x, y, z = state
        step = np.array([[-10, 10, 0], [28 - z, -1, -x], [y, x, -8 / 3]])
        state = state + h * np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
        jacobian = (np.eye(3) + h * step) @ jacobian
    return state, jacobian


@wrong(
    "curvature/fast-sine-in-a-layer",
    "sin(1e5 (x w)), and dw is twice too large.",
    undecided=True,
    step=1e-8,
    **NOT_A_KINK,
)
def _(seed):
    draw = Draw(seed)

    def forward(x, w):
        return np.sin(1e5 * x * w), (x, w)

    def backward(dout, cache):
        x, w = cache
        d = 1e5 * dout * np.cos(1e5 * x * w)
        return d * w, 2 * d * x

    return check_layer((forward, backward), draw(4), draw(4))


@wrong(
    "curvature/lorenz-50-steps",
    "Fifty steps of the Lorenz system, whose adjoint is twice too large.",
    undecided=True,
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def gradient(state, dout):
        return 2 * lorenz(state, 50)[1].T @ dout

    return check_function(lambda state: lorenz(state, 50)[0], Draw(seed).positive(3, low=1, high=10), gradient=gradient)


@wrong(
    "curvature/lorenz-adjoint-in-order",
    "Thirty Lorenz steps; the Jacobians are multiplied in the wrong order.",
    undecided=True,
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def gradient(state, dout):
        for _ in range(30):
            state, jacobian = lorenz(state, 1)
            dout = jacobian.T @ dout
        return dout

    return check_function(lambda state: lorenz(state, 30)[0], Draw(seed).positive(3, low=1, high=10), gradient=gradient)


@wrong(
    "curvature/tiny-norm",
    "The norm of rows of 1e-4 with eps 1e-8, whose gradient is twice too large.",
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def f(x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-8)

    def gradient(x, dout):
        s = np.sqrt((x * x).sum(-1, keepdims=True) + 1e-8)
        return 2 * (dout - x * (x * dout).sum(-1, keepdims=True) / s**2) / s

    return check_function(f, 1e-4 * Draw(seed)(4, 5), gradient=gradient)


@wrong(
    "curvature/layernorm-offset-1e4",
    "LayerNorm of values near 1e4, whose gradient lacks the mean of dout.",
    step=1e-5,
    **NOT_A_KINK,
)
def _(seed):
    def forward(x):
        c = x - x.mean(-1, keepdims=True)
        s = np.sqrt((c * c).mean(-1, keepdims=True) + 1e-6)
        return c / s, (c / s, s)

    def backward(dout, cache):
        y, s = cache
        return (dout - y * (dout * y).mean(-1, keepdims=True)) / s

    return check_layer((forward, backward), 1e4 + Draw(seed)(4, 6))


@wrong(
    "curvature/rows-of-1e-5-and-of-1",
    "Row normalisation; the small rows' gradient is twice too large.",
    step=1e-6,
    **NOT_A_KINK,
)
def _(seed):
    def f(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def gradient(x, dout):
        r = np.linalg.norm(x, axis=-1, keepdims=True)
        g = (dout - f(x) * (f(x) * dout).sum(-1, keepdims=True)) / r
        return np.where(r < 1e-3, 2 * g, g)

    x = Draw(seed)(6, 4)
    x[::2] *= 1e-5
    return check_function(f, x, gradient=gradient)


@wrong(
    "curvature/large-row-among-rows-of-1e-5",
    "Row normalisation; the small gradient of the rows of 1 has the wrong sign.",
    undecided=True,
    step=1e-6,
    never="kink",
    off=1e-6,
)
def _(seed):
    def f(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def gradient(x, dout):
        r = np.linalg.norm(x, axis=-1, keepdims=True)
        g = (dout - f(x) * (f(x) * dout).sum(-1, keepdims=True)) / r
        return np.where(r > 1e-3, -g, g)

    x = Draw(seed)(6, 4)
    x[::2] *= 1e-5
    return check_function(f, x, gradient=gradient)


def conditioned(draw, n=5, condition=1e5):
    q, r = np.linalg.qr(draw(n, n))[0], np.linalg.qr(draw(n, n))[0]
    return q @ np.diag(np.geomspace(1, 1 / condition, n)) @ r


@wrong(
    "curvature/solve-of-condition-1e5",
    "A solve whose dA is 1 % too large.",
    step=1e-8,
    undecided=True,
    never="kink",
    off=5e-3,
)
def _(seed):
    draw = Draw(seed)

    def forward(a, b):
        x = np.linalg.solve(a, b)
        return x, (a, x)

    def backward(dout, cache):
        a, x = cache
        db = np.linalg.solve(a.T, dout)
        return -1.01 * np.outer(db, x), db

    return check_layer((forward, backward), conditioned(draw), draw(5))


@wrong(
    "curvature/solve-without-the-transpose",
    "A solve whose db uses A instead of its transpose.",
    step=1e-7,
    **NOT_A_KINK,
)
def _(seed):
    draw = Draw(seed)

    def gradient(a, b, dout):
        db = np.linalg.solve(a, dout)
        return -np.outer(db, np.linalg.solve(a, b)), db

    return check_function(np.linalg.solve, conditioned(draw, condition=1e3), draw(5), gradient=gradient, name="solve")
