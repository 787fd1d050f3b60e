"""Right layers and networks that draw random numbers, or that add numbers in a random order."""

# ruff: noqa: NPY002, these kinds use the global generator

import random

import numpy as np

from jaxnet.crosscheck import check, check_function, check_layer, check_network
from mutants.kinds import Draw, right

STATE = "earlier call|shared by the class"


class Dropout:
    """y = x m / (1 - p) with a mask from `draw`, kept for backward."""

    def __init__(self, draw, p=0.5):
        self.draw, self.p = draw, p

    def forward(self, x):
        self.mask = (self.draw(x.shape) > self.p) / (1 - self.p)
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


SOURCES = {
    "global-numpy": lambda seed: lambda shape: np.random.rand(*shape),
    "global-numpy-binomial": lambda seed: lambda shape: np.random.binomial(1, 0.5, shape).astype(float),
    "global-random": lambda seed: (
        lambda shape: np.reshape([random.random() for _ in range(int(np.prod(shape)))], shape)
    ),
    "own-seeded-generator": lambda seed: np.random.default_rng(seed).random,
    "own-random-state": lambda seed: np.random.RandomState(seed).random_sample,
    "generator-anew-at-each-call": lambda seed: lambda shape: np.random.default_rng(seed + 1).random(shape),
}
for label, source in SOURCES.items():

    @right(f"random/dropout-{label}", f"dropout that keeps its mask, drawn from: {label}", never=STATE)
    def dropout(seed, source=source):
        return check_layer(Dropout(source(seed)), Draw(seed)(5, 4))

    if label.startswith("own"):
        continue

    @right(
        f"random/network-gradient-draws-again-{label}",
        "gradient runs loss again, which draws another mask",
        never=STATE,
    )
    def network(seed, source=source):
        draw = Draw(seed)

        class Net:
            def __init__(self):
                self.params, self.drop = {"W1": draw(4, 6), "W2": draw(6, 3)}, Dropout(source(seed), 0.3)

            def loss(self, x, t):
                self.x = x
                self.h = self.drop.forward(np.tanh(x @ self.params["W1"]))
                self.e = self.h @ self.params["W2"] - t
                return 0.5 * (self.e**2).sum()

            def gradient(self, x, t):
                self.loss(x, t)
                d = self.drop.backward(self.e @ self.params["W2"].T) * (1 - np.tanh(x @ self.params["W1"]) ** 2)
                return {"W1": x.T @ d, "W2": self.h.T @ self.e}

        return check_network(Net(), draw(5, 4), draw(5, 3))


@right("random/noise-that-is-added", "Gaussian noise from np.random is added to the input in training", never=STATE)
def noise(seed):
    class Noise:
        def forward(self, x):
            self.y = np.tanh(x + 0.1 * np.random.randn(*x.shape))
            return self.y.copy()

        def backward(self, dout):
            return dout * (1 - self.y**2)

    return check_layer(Noise(), Draw(seed)(5, 4))


@right("random/reparametrised-sample", "a variational sample, mu + exp(s) e, with e from np.random", never=STATE)
def sample(seed):
    draw = Draw(seed)

    def forward(mu, s):
        e = np.random.standard_normal(mu.shape)
        return mu + np.exp(s) * e, (s, e)

    return check_layer((forward, lambda dout, c: (dout, dout * np.exp(c[0]) * c[1])), draw(4, 3), draw(4, 3))


@right("random/stochastic-depth", "a residual branch that is left out of some samples at random", never=STATE)
def depth(seed):
    draw = Draw(seed)

    class Residual:
        def __init__(self):
            self.W = draw(4, 4)

        def forward(self, x):
            self.x, self.on = x, np.random.rand(len(x), 1) < 0.5
            return x + self.on * (x @ self.W)

        def backward(self, dout):
            d = self.on * dout
            self.dW = self.x.T @ d
            return dout + d @ self.W.T

    return check_layer(Residual(), draw(9, 4))


def in_any_order(array, order):
    total = np.zeros_like(array[0])
    for i in order.permutation(len(array)):
        total = total + array[i]
    return total


for dtype in ("float64", "float32"):

    @right(f"order/forward-sums-in-any-order-{dtype}", "a sum whose order differs from call to call", never=STATE,
           step=3e-2 if dtype == "float32" else 1e-3)  # fmt: skip
    def any_order(seed, dtype=dtype):
        order = np.random.default_rng()
        return check_layer(
            (lambda x: (np.tanh(in_any_order(x, order)), x), lambda d, x: np.broadcast_to(
                d * (1 - np.tanh(x.sum(axis=0)) ** 2), x.shape).astype(x.dtype)),
            Draw(seed)(50, 4).astype(dtype) / 5,
        )  # fmt: skip

    @right(f"order/scatter-as-by-atomics-{dtype}", "a table's gradient is summed in any order", never=STATE,
           step=3e-2 if dtype == "float32" else 1e-3)  # fmt: skip
    def atomics(seed, dtype=dtype):
        draw, order = Draw(seed), np.random.default_rng()
        ids = draw.rng.integers(0, 4, 60)

        def backward(dout, shape):
            dw = np.zeros(shape, dout.dtype)
            for i in order.permutation(len(ids)):
                dw[ids[i]] += dout[i]
            return dw

        return check_layer((lambda w: (w[ids], w.shape), backward), draw(4, 5).astype(dtype))


@right(
    "order/shuffled-batches",
    "a loss that shuffles its terms before it sums them, which changes only rounding",
    never=STATE,
)
def shuffled(seed):
    draw = Draw(seed)
    x, y, order = draw(40, 3), draw(40), np.random.default_rng()

    def loss(w):
        p = order.permutation(40)
        return float(((x[p] @ w - y[p]) ** 2).sum())

    return check_function(loss, draw(3), gradient=lambda w: 2 * x.T @ (x @ w - y))


def torch_network(seed):
    import torch

    torch.manual_seed(seed)
    layers = torch.nn.Linear(4, 6), torch.nn.Dropout(0.4), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    return torch.nn.Sequential(*layers).double()


def torch_drop():
    import torch

    class Drop(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            mask = torch.rand_like(x) > 0.5
            ctx.save_for_backward(mask)
            return x * mask * 2

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0] * 2

    return Drop.apply


def torch_error(make):
    """Returns a function of a seed that runs PyTorch's checker, with the generator reset for each value."""

    def error(seed):
        import torch

        f, x = make(seed), torch.tensor(Draw(seed)(5, 4), requires_grad=True)
        good = torch.autograd.gradcheck(lambda x: (torch.manual_seed(1), f(x))[1], (x,), raise_exception=False)
        return 0.0 if good else 1.0

    return error


@right("random/torch-dropout-in-training", "torch's dropout and its generator, between two linear layers", never=STATE,
       true=torch_error(torch_network))  # fmt: skip
def torch_dropout(seed):
    import torch

    return check(torch_network(seed), torch.tensor(Draw(seed)(5, 4)))


@right("random/torch-function-drops", "an autograd function that draws its own mask and saves it", never=STATE,
       true=torch_error(lambda seed: torch_drop()))  # fmt: skip
def torch_function(seed):
    import torch

    return check(torch_drop(), torch.tensor(Draw(seed)(5, 4)))
