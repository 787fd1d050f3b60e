"""Tests unmodified code in common styles: the book's two volumes, course functions, JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.crosscheck import SubjectError, check_function, check_layer, check_network


def same_size_windows(x, size, stride):
    """Returns the elements of every window: (N, C, H, W) -> (N, C, size², OH, OW)."""
    height, width = ((n - size) // stride + 1 for n in x.shape[2:])
    taps = [
        x[:, :, i : i + stride * height : stride, j : j + stride * width : stride]
        for i in range(size)
        for j in range(size)
    ]
    return np.stack(taps, axis=2)


class Multiply:
    """Volume 1, chapter 5: layers of two numbers."""

    def forward(self, x, y):
        self.x, self.y = x, y
        return x * y

    def backward(self, dout):
        return dout * self.y, dout * self.x


class TensorAffine:
    """Volume 1, chapter 7: inputs of any shape are flattened."""

    def __init__(self, W, b):
        self.W, self.b = W, b
        self.x = self.original_x_shape = self.dW = self.db = None

    def forward(self, x):
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout):
        self.dW, self.db = np.dot(self.x.T, dout), np.sum(dout, axis=0)
        return np.dot(dout, self.W.T).reshape(*self.original_x_shape)


class AliasingSigmoid:
    """Volume 1, chapter 5: the returned output is also the cached one."""

    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * (1.0 - self.out) * self.out


class GlobalDropout:
    """Volume 1, chapter 6: the mask comes from NumPy's global generator."""

    def __init__(self, ratio=0.5):
        self.dropout_ratio, self.mask = ratio, None

    def forward(self, x, train_flg=True):
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio  # noqa: NPY002
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class BatchNormalization:
    """Volume 1, chapter 6: running statistics, created at the first call."""

    def __init__(self, gamma, beta, momentum=0.9):
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean = self.running_var = self.dgamma = self.dbeta = None

    def forward(self, x, train_flg=True):
        if self.running_mean is None:
            self.running_mean, self.running_var = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        self.xc = x - x.mean(axis=0)
        var = np.mean(self.xc**2, axis=0)
        self.std = np.sqrt(var + 10e-7)
        self.xn = self.xc / self.std
        self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * x.mean(axis=0)
        self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        return self.gamma * self.xn + self.beta

    def backward(self, dout):
        self.dbeta, self.dgamma = dout.sum(axis=0), np.sum(self.xn * dout, axis=0)
        dxn = self.gamma * dout
        dxc = dxn / self.std
        dvar = 0.5 * -np.sum(dxn * self.xc / self.std**2, axis=0) / self.std
        dxc += 2.0 / len(dout) * self.xc * dvar
        return dxc - dxc.sum(axis=0) / len(dout)


class Pooling:
    """Volume 1, chapter 7: forward caches the place of each window's maximum."""

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def forward(self, x):
        self.x, windows = x, same_size_windows(x, self.size, self.stride)
        self.arg_max = windows.argmax(axis=2)
        return windows.max(axis=2)

    def backward(self, dout):
        dx = np.zeros_like(self.x)
        for n, c, i, j in np.ndindex(*dout.shape):
            a, b = divmod(self.arg_max[n, c, i, j], self.size)
            dx[n, c, i * self.stride + a, j * self.stride + b] += dout[n, c, i, j]
        return dx


class ListedMatMul:
    """Volume 2: parameters and gradients in lists, gradients written in place."""

    def __init__(self, W):
        self.params, self.grads, self.x = [W], [np.zeros_like(W)], None

    def forward(self, x):
        (W,) = self.params
        self.x = x
        return np.dot(x, W)

    def backward(self, dout):
        (W,) = self.params
        self.grads[0][...] = np.dot(self.x.T, dout)
        return np.dot(dout, W.T)


class ListedEmbedding:
    """Volume 2: backward returns nothing, because ids have no gradient."""

    def __init__(self, W):
        self.params, self.grads, self.idx = [W], [np.zeros_like(W)], None

    def forward(self, idx):
        self.idx = idx
        return self.params[0][idx]

    def backward(self, dout):
        (dW,) = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)


class RecurrentStep:
    """Volume 2: two inputs, two gradients, three parameters."""

    def __init__(self, Wx, Wh, b):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        h = np.tanh(x @ Wx + h_prev @ Wh + b)
        self.cache = x, h_prev, h
        return h

    def backward(self, dh):
        Wx, Wh, _ = self.params
        x, h_prev, h = self.cache
        dt = dh * (1 - h**2)
        for gradient, value in zip(self.grads, (x.T @ dt, h_prev.T @ dt, dt.sum(axis=0)), strict=True):
            gradient[...] = value
        return dt @ Wx.T, dt @ Wh.T


class TimeRecurrent:
    """Volume 2: a layer of layers that share its parameters, over (N, T, D)."""

    def __init__(self, Wx, Wh, b):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None

    def forward(self, xs):
        self.layers, hs = [], []
        h = np.zeros((len(xs), self.params[1].shape[0]), xs.dtype)
        for t in range(xs.shape[1]):
            layer = RecurrentStep(*self.params)
            h = layer.forward(xs[:, t], h)
            self.layers.append(layer)
            hs.append(h)
        return np.stack(hs, axis=1)

    def backward(self, dhs):
        dxs, dh, sums = [], 0, [0, 0, 0]
        for t, layer in reversed(list(enumerate(self.layers))):
            dx, dh = layer.backward(dhs[:, t] + dh)
            dxs.insert(0, dx)
            sums = [total + gradient for total, gradient in zip(sums, layer.grads, strict=True)]
        for gradient, total in zip(self.grads, sums, strict=True):
            gradient[...] = total
        return np.stack(dxs, axis=1)


class Cell:
    """Volume 2: an LSTM with two outputs and two upstream gradients."""

    def __init__(self, Wx, Wh):
        self.Wx, self.Wh = Wx, Wh

    def forward(self, x, h, c):
        f, g, i, o = np.split(x @ self.Wx + h @ self.Wh, 4, axis=1)
        f, g, i, o = 1 / (1 + np.exp(-f)), np.tanh(g), 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-o))
        c_next = f * c + g * i
        self.cache = x, h, c, f, g, i, o, c_next
        return o * np.tanh(c_next), c_next

    def backward(self, dh_next, dc_next):
        x, h, c, f, g, i, o, c_next = self.cache
        ds = dc_next + dh_next * o * (1 - np.tanh(c_next) ** 2)
        gates = ds * c * f * (1 - f), ds * i * (1 - g**2), ds * g * i * (1 - i), dh_next * np.tanh(c_next) * o * (1 - o)
        dA = np.hstack(gates)
        self.dWx, self.dWh = x.T @ dA, h.T @ dA
        return dA @ self.Wx.T, dA @ self.Wh.T, ds * f


class Block:
    """A layer that holds layers."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def forward(self, x):
        return self.second.forward(np.tanh(self.first.forward(x))) + x

    def backward(self, dout):
        dy = self.second.backward(dout)
        return self.first.backward(dy * (1 - np.tanh(self.first.forward(self.first.x)) ** 2)) + dout


# -- the function style


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(axis=0)


def dropout_forward(x, dropout_param):
    np.random.seed(dropout_param["seed"])  # noqa: NPY002
    mask = (np.random.rand(*x.shape) < dropout_param["p"]) / dropout_param["p"]  # noqa: NPY002
    return x * mask, (dropout_param, mask)


def dropout_backward(dout, cache):
    return dout * cache[1]


def batchnorm_forward(x, gamma, beta, bn_param):
    mean, var = x.mean(axis=0), x.var(axis=0)
    bn_param["running_mean"] = 0.9 * bn_param.get("running_mean", np.zeros(x.shape[1])) + 0.1 * mean
    xhat = (x - mean) / np.sqrt(var + bn_param["eps"])
    return gamma * xhat + beta, (xhat, gamma, var, bn_param["eps"])


def batchnorm_backward(dout, cache):
    xhat, gamma, var, eps = cache
    dxhat = dout * gamma
    dx = (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0)) / np.sqrt(var + eps)
    return dx, (dout * xhat).sum(axis=0), dout.sum(axis=0)


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh):
    cell = Cell(Wx, Wh)
    return *cell.forward(x, prev_h, prev_c), cell


def lstm_step_backward(dnext_h, dnext_c, cache):
    gradients = cache.backward(dnext_h, dnext_c)
    return *gradients, cache.dWx, cache.dWh


def word_embedding_forward(x, W):
    return W[x], (x, W.shape)


def word_embedding_backward(dout, cache):
    dW = np.zeros(cache[1], dout.dtype)
    np.add.at(dW, cache[0], dout)
    return dW


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


IDS = np.array([[0, 2, 2], [5, 1, 0]])
RIGHT = {
    "two numbers": (Multiply(), (2.0, 3.0), {"x", "y"}),
    "a list of numbers": (AliasingSigmoid(), ([[1.0, -2.0], [0.5, 3.0]],), {"x"}),
    "flattening Affine": (TensorAffine(draw(12, 3), draw(3)), (draw(5, 3, 2, 2),), {"W", "b", "x"}),
    "aliasing Sigmoid": (AliasingSigmoid(), (draw(3, 4),), {"x"}),
    "Dropout from the global generator": (GlobalDropout(), (draw(6, 8),), {"x"}),
    "Dropout with its flag": (GlobalDropout(), (draw(6, 8), True), {"x"}),
    "BatchNormalization": (BatchNormalization(draw(4), draw(4)), (draw(7, 4),), {"gamma", "beta", "x"}),
    "Pooling": (Pooling(3, 2), (draw(2, 2, 7, 7),), {"x"}),
    "gradients in lists": (ListedMatMul(draw(4, 3)), (draw(5, 4),), {"params[0]", "x"}),
    "Embedding that returns nothing": (ListedEmbedding(draw(6, 3)), (IDS,), {"params[0]"}),
    "a recurrent step": (
        RecurrentStep(draw(4, 3), draw(3, 3), draw(3)), (draw(5, 4), draw(5, 3)),
        {"params[0]", "params[1]", "params[2]", "x", "h_prev"},
    ),
    "a recurrent layer": (
        TimeRecurrent(draw(4, 3), draw(3, 3), draw(3)), (draw(2, 5, 4),),
        {"params[0]", "params[1]", "params[2]", "xs"},
    ),
    "two outputs": (Cell(draw(4, 12), draw(3, 12)), (draw(5, 4), draw(5, 3), draw(5, 3)), {"Wx", "Wh", "x", "h", "c"}),
    "layers within": (
        Block(TensorAffine(draw(4, 4), draw(4)), TensorAffine(draw(4, 4), draw(4))), (draw(5, 4),),
        {"first.W", "first.b", "second.W", "second.b", "x"},
    ),
    "affine functions": ((affine_forward, affine_backward), (draw(4, 2, 3), draw(6, 5), draw(5)), {"x", "w", "b"}),
    "dropout functions": ((dropout_forward, dropout_backward), (draw(6, 8), {"p": 0.7, "seed": 3}), {"x"}),
    "batchnorm functions": (
        (batchnorm_forward, batchnorm_backward), (draw(8, 3), draw(3), draw(3), {"eps": 1e-5}), {"x", "gamma", "beta"},
    ),
    "lstm functions": (
        (lstm_step_forward, lstm_step_backward), (draw(5, 4), draw(5, 3), draw(5, 3), draw(4, 12), draw(3, 12)),
        {"x", "prev_h", "prev_c", "Wx", "Wh"},
    ),
    "embedding functions": ((word_embedding_forward, word_embedding_backward), (IDS, draw(6, 3)), {"W"}),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_layers_of_all_styles_pass(name):
    layer, inputs, leaves = RIGHT[name]
    report = check_layer(layer, *inputs)
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == leaves


def single(value):
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradients in lists", "a recurrent layer", "layers within", "lstm functions"])
def test_right_layers_in_single_precision_pass(name):
    layer, inputs, _ = RIGHT[name]
    if isinstance(layer, Block):
        layer = Block(*(TensorAffine(single(draw(4, 4)), single(draw(4))) for _ in range(2)))
    elif hasattr(layer, "params"):
        layer = type(layer)(*map(single, layer.params))
    check_layer(layer, *map(single, inputs)).raise_if_failed()


def test_global_generators_are_restored():
    np.random.seed(5)  # noqa: NPY002
    check_layer(GlobalDropout(), draw(6, 8))
    after = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert after == np.random.rand()  # noqa: NPY002


class Forgetful(TensorAffine):
    def backward(self, dout):
        super().backward(dout)
        self.db = None
        return np.dot(dout, self.W.T)


class Redrawn(GlobalDropout):
    def backward(self, dout):
        return dout * (np.random.rand(*dout.shape) > self.dropout_ratio)  # noqa: NPY002


class Unrepeatable(GlobalDropout):
    def forward(self, x):
        self.mask = np.random.default_rng().random(x.shape) > 0.5
        return x * self.mask


class Raising(AliasingSigmoid):
    def backward(self, dout):
        raise KeyError("out")


class SwappedOutputs(Cell):
    def backward(self, dh_next, dc_next):
        return super().backward(dc_next, dh_next)


WRONG = {
    "a gradient left None": (Forgetful(draw(4, 3), draw(3)), (draw(5, 4),), "returns None for b"),
    "a mask drawn again": (Redrawn(), (draw(6, 8),), "not the derivative of its own forward"),
    "backward raises": (Raising(), (draw(3, 4),), "backward raises KeyError"),
    "two outputs exchanged": (
        SwappedOutputs(draw(4, 12), draw(3, 12)),
        (draw(5, 4), draw(5, 3), draw(5, 3)),
        "not the derivative of its own forward",
    ),
    "one row too few": (
        (affine_forward, lambda dout, cache: (*affine_backward(dout, cache)[:2], dout[:-1].sum(axis=0))),
        (draw(4, 6), draw(6, 5), draw(5)), "b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_layers_of_all_styles_fail_with_their_cause(name):
    layer, inputs, text = WRONG[name]
    report = check_layer(layer, *inputs)
    assert report.verdict == "FAIL"
    assert text in report.text(width=None)


def test_forward_with_an_unseeded_generator_is_inconclusive():
    report = check_layer(Unrepeatable(), draw(6, 8))
    assert report.verdict == "INCONCLUSIVE"
    assert "random numbers without a seed" in report.text(width=None)
    assert check_layer(GlobalDropout(), draw(6, 8)).verdict == "PASS"


def test_redrawn_mask_is_not_reported_as_a_misread_layout():
    assert "contiguous" not in check_layer(Redrawn(), draw(6, 8)).text(width=None)


class OneHot:
    """Takes class numbers, and has no parameters."""

    def forward(self, ids):
        return np.eye(4)[ids].sum(axis=0)

    def backward(self, dout):
        return None


REFUSED = {
    "a class": (lambda: check_layer(TensorAffine, draw(2, 3)), "the class TensorAffine, expected an instance"),
    "no backward": (lambda: check_layer(object(), draw(2, 3)), "object has no method"),
    "too few inputs": (lambda: check_layer(AliasingSigmoid()), "AliasingSigmoid.forward takes x: x is missing; pass x"),
    "objects": (lambda: check_layer(AliasingSigmoid(), np.array([1.0, None])), "x: an array of object"),
    "nan": (lambda: check_layer(AliasingSigmoid(), np.array([[1.0, np.nan]])), r"x\[0, 1\]: nan"),
    "integers alone": (lambda: check_layer(OneHot(), np.arange(3)), "no input and no parameter of floats"),
    "ragged": (lambda: check_layer(AliasingSigmoid(), [[1.0], [1.0, 2.0]]), "rows of different lengths"),
    "forward raises": (lambda: check_layer(AliasingSigmoid(), "abc"), "AliasingSigmoid.forward: raised"),
    "a triple": (lambda: check_layer((np.sin, np.cos, np.tan), draw(3)), "a tuple of 3"),
    "no cache": (lambda: check_layer((np.sin, lambda dout, cache: dout), draw(3)), "expected a pair"),
    "too many gradients": (
        lambda: check_layer((lambda x: (x, None), lambda dout, cache: (dout, dout)), draw(3)),
        "returned 2 gradients for 1 input,",
    ),
    "no network": (lambda: check_network(object(), draw(2, 3), [0, 1]), "object has no `params`"),
    "no function": (lambda: check_function(3, draw(2)), "f: an int, expected a function"),
    "not JAX": (lambda: check_function(lambda x: np.sin(x) + float(x[0]), draw(2)), "pass gradient="),
    "another shape": (
        lambda: check_layer(AliasingSigmoid(), draw(2, 3), reference=lambda x: jnp.sum(x)), "reference: .* shape",
    ),
    "a wrong reference": (
        lambda: check_layer(AliasingSigmoid(), draw(2, 3), reference=lambda params, x: x), "the reference .*raised",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_code_is_rejected_by_name(name):
    check, message = REFUSED[name]
    with pytest.raises(SubjectError, match=message):
        check()


# -- functions


@pytest.mark.slow
def test_a_custom_gradient_is_checked_against_its_own_forward():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    check_function(sine, draw(3, 4)).raise_if_failed()
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (1.001 * g * jnp.cos(x),))
    report = check_function(sine, draw(3, 4))
    assert report.verdict == "FAIL"
    assert "times 1.001" in report.leaves[0].diagnosis


@pytest.mark.slow
def test_functions_of_trees_and_integers_pass():
    def logits(params, ids):
        return jnp.tanh(params["table"][ids]) @ params["out"]["W"] + params["out"]["b"]

    params = {"table": draw(6, 4), "out": {"W": draw(4, 3), "b": draw(3)}}
    report = check_function(logits, params, IDS)
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == {"params.table", "params.out.W", "params.out.b"}


GRADIENTS = {
    "a scalar's": (lambda x, y: (x * y).sum(), lambda x, y: (y, x)),
    "dout last": (lambda x, y: x * y, lambda x, y, above: (above * y, above * x)),
    "dout first": (lambda x, y: x * y, lambda dout, x, y: (dout * y, dout * x)),
    "several outputs": (lambda x, y: (x * y, x + y), lambda x, y, a, b: (a * y + b, a * x + b)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_may_take_dout_first_last_or_not_at_all(name):
    f, gradient = GRADIENTS[name]
    check_function(f, draw(3, 4), draw(4, 3).T, gradient=gradient).raise_if_failed()
    report = check_function(f, draw(3, 4), draw(4, 3).T, gradient=lambda *args: [2.0 * g for g in gradient(*args)])
    assert report.verdict == "FAIL" or name != "a scalar's"


def test_gradients_may_be_a_tree():
    params, x = {"W": draw(4, 3), "b": draw(3)}, draw(5, 4)

    def forward(params, x):
        return x @ params["W"] + params["b"]

    def gradient(params, x, dout):
        return {"W": x.T @ dout, "b": dout.sum(axis=0)}, dout @ params["W"].T

    report = check_function(forward, params, x, gradient=gradient, reference=forward)
    report.raise_if_failed()
    assert {leaf.name for leaf in report.leaves} == {"params.W", "params.b", "x"}
