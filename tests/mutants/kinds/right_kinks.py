"""Right pointwise functions at points some of which are kinks, or where only the first derivative is continuous."""

import numpy as np

from jaxnet.crosscheck import check_function, check_layer
from mutants.kinds import Draw, right

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805


def on_the_corners(draw, corners):
    """Returns a matrix with every kink at a random place, among numbers that are at none."""
    x = draw.off_zero(4, 5).ravel()
    for corner in corners:
        x = np.where(np.abs(x - corner) < 0.05, x + 0.11, x)
    places = draw.rng.permutation(x.size)[: 2 * len(corners)]
    x[places] = np.tile(corners, 2)
    return x.reshape(4, 5)


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


POINTWISE = {  # function, slope with a choice at the corner, corners
    "relu_slope_1_at_0": (lambda x: np.maximum(x, 0), lambda x: x >= 0, [0.0]),
    "relu_slope_half_at_0": (lambda x: np.maximum(x, 0), lambda x: np.heaviside(x, 0.5), [0.0]),
    "clip": (lambda x: np.clip(x, -0.5, 1), lambda x: (x >= -0.5) & (x <= 1), [-0.5, 1.0]),
    "hard_tanh": (lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) < 1, [-1.0, 1.0]),
    "relu6": (lambda x: np.minimum(np.maximum(x, 0), 6), lambda x: (x > 0) & (x <= 6), [0.0, 6.0]),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), [0.0]),
    "hard_sigmoid": (lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: 0.2 * (np.abs(x) < 2.5), [-2.5, 2.5]),
    "hard_swish": (lambda x: x * np.clip(x + 3, 0, 6) / 6,
                   lambda x: np.where(x >= 3, 1, np.where(x <= -3, 0, x / 3 + 0.5)), [-3.0, 3.0]),
    "absolute_value": (np.abs, np.sign, [0.0]),
    "huber_at_delta": (lambda x: np.where(np.abs(x) <= 1, x * x / 2, np.abs(x) - 0.5), lambda x: np.clip(x, -1, 1),
                       [-1.0, 1.0]),
    "pseudo_square": (lambda x: x * np.abs(x), lambda x: 2 * np.abs(x), [0.0]),
    "softsign": (lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2, [0.0]),
    "elu": (elu, lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0))), [0.0]),
    "selu": (lambda x: SCALE * np.where(x > 0, x, ALPHA * elu(np.minimum(x, 0))),
             lambda x: SCALE * np.where(x > 0, 1, ALPHA * np.exp(np.minimum(x, 0))), [0.0]),
    "celu": (lambda x: np.maximum(x, 0) + np.minimum(0, 0.5 * (np.exp(np.minimum(x, 0) / 0.5) - 1)),
             lambda x: np.where(x >= 0, 1, np.exp(np.minimum(x, 0) / 0.5)), [0.0]),
    "soft_shrink": (lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0), lambda x: np.abs(x) > 0.5, [-0.5, 0.5]),
    "tent_map": (lambda x: 1 - np.abs(x % 2 - 1), lambda x: np.where(x % 2 < 1, 1, -1), [0.0, 1.0, 2.0]),
    "concave_minimum": (lambda x: np.minimum(x, 1 - 0.5 * x), lambda x: np.where(x < 2 / 3, 1, -0.5), [2 / 3]),
    "mish_of_relu": (lambda x: np.tanh(np.maximum(x, 0)), lambda x: (x > 0) / np.cosh(x) ** 2, [0.0]),
    "positive_power": (lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0), [0.0]),
    "positive_cube": (lambda x: np.maximum(x - 1, 0) ** 3, lambda x: 3 * np.maximum(x - 1, 0) ** 2, [1.0]),
}  # fmt: skip

for label, (function, slope, corners) in POINTWISE.items():

    @right(
        f"kink/{label}", f"{label} with elements exactly at {corners}: the slope is that of one side, or between both"
    )
    def check(seed, function=function, slope=slope, corners=corners):
        x = on_the_corners(Draw(seed), corners)
        return check_layer((lambda x: (function(x), x), lambda dout, x: dout * slope(x)), x)

    if label in ("relu6", "clip", "leaky_relu", "hard_swish", "elu", "absolute_value"):

        @right(f"kink/{label}-float32", f"{label} with float32 elements exactly at {corners}", step=3e-2)
        def check_single(seed, function=function, slope=slope, corners=corners):
            x = on_the_corners(Draw(seed), corners).astype(np.float32)

            def backward(dout, x):
                return (dout * slope(x)).astype(x.dtype)

            return check_layer((lambda x: (function(x).astype(x.dtype), x), backward), x)


@right("kink/every-element-at-a-corner", "clipping of an array that was clipped before: all elements may be at bounds")
def clipped_before(seed):
    x = np.clip(3 * Draw(seed)(6, 5), -1, 1)
    return check_function(lambda x: np.clip(x, -1, 1), x, gradient=lambda x, dout: dout * (np.abs(x) < 1))


@right("kink/zeros-of-relu-before-relu", "a ReLU after another ReLU: half of its inputs are exactly 0")
def relu_of_relu(seed):
    draw = Draw(seed)
    h, w = np.maximum(draw(6, 4), 0), draw(4, 3)

    def backward(dout, cache):
        h, w = cache
        return (dout @ w.T) * (h > 0), np.maximum(h, 0).T @ dout

    return check_layer((lambda h, w: (np.maximum(h, 0) @ w, (h, w)), backward), h, w)


@right("kink/zero-bias-dead-and-padded-rows", "rows of padding and the bias are 0, so their units are at the kink")
def padded_rows(seed):
    draw = Draw(seed)
    x, w, b = draw(6, 4), draw(4, 3), np.zeros(3)
    x[[1, 4]] = 0

    def backward(dout, cache):
        x, w, z = cache
        d = dout * (z > 0)
        return d @ w.T, x.T @ d, d.sum(axis=0)

    return check_layer((lambda x, w, b: (np.maximum(x @ w + b, 0), (x, w, x @ w + b)), backward), x, w, b)


@right("kink/soft-threshold-by-lambda", "soft thresholding, with a gradient by the threshold, elements on it")
def soft_threshold(seed):
    x = on_the_corners(Draw(seed), [-0.5, 0.5])

    def gradient(x, t, dout):
        beyond = np.abs(x) > t
        return dout * beyond, np.array(-(dout * beyond * np.sign(x)).sum())

    return check_function(lambda x, t: np.sign(x) * np.maximum(np.abs(x) - t, 0), x, np.array(0.5), gradient=gradient)


@right(
    "kink/relu-of-tiny-activations",
    "a deep network with small weights, whose hidden units of 1e-8 are near the kink",
)
def deep_and_small(seed):
    draw = Draw(seed)
    weights = [5e-2 * draw(8, 8) for _ in range(5)]

    def forward(x, *ws):
        inputs = []
        for w in ws:
            inputs.append(x)
            x = np.maximum(x @ w, 0)
        return x, (inputs, ws, x)

    def backward(dout, cache):
        inputs, ws, y = cache
        grads = []
        for x, w, z in zip(reversed(inputs), reversed(ws), [y, *reversed(inputs[1:])], strict=True):
            d = dout * (z > 0)
            grads.append(x.T @ d)
            dout = d @ w.T
        return (dout, *reversed(grads))

    return check_layer((forward, backward), draw(6, 8), *weights)
