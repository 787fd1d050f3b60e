"""Kinks at 1, 6, integers and margins, with a wrong factor near them or a slope outside those of both sides."""

import numpy as np

from jaxnet.crosscheck import check_function
from mutants.kinds import Draw, wrong


def beyond(f, gradient, x, *rest):
    """Returns the distance of a pointwise gradient from the one-sided slopes, divided by the larger of them."""
    h = 1e-6
    sides = [(f(x + s * h, *rest) - f(x, *rest)) / (s * h) for s in (1, -1)]
    low, high = np.minimum(*sides), np.maximum(*sides)
    got = gradient(x, *rest, dout=np.ones_like(x))
    gap = np.maximum(np.maximum(low - got, got - high), 0)
    return float(gap.max() / np.abs([low, high]).max())


def elementwise(name, sentence, f, gradient, points):
    """Registers f(x) and its gradient(x, dout) at points that include kinks."""

    def inputs(seed):
        return points(Draw(seed))

    wrong(name, sentence, off=0.02, true=lambda seed: beyond(f, gradient, inputs(seed)))(
        lambda seed: check_function(f, inputs(seed), gradient=gradient)
    )


def with_points(*special):
    """Returns these points among ordinary ones."""
    return lambda draw: draw.rng.permutation(np.concatenate([np.array(special, float), draw.off_zero(6)]))


def only(*special):
    """Returns these points, several times."""
    return lambda draw: draw.rng.permutation(np.array(special * 3, float))


elementwise(
    "kink/hardsigmoid-slope",
    "The slope is 1/5 instead of 1/6; two inputs are exactly -3 and 3.",
    lambda x: np.clip(x / 6 + 0.5, 0, 1),
    lambda x, dout: dout * (np.abs(x) < 3) / 5,
    with_points(-3, 3),
)
elementwise(
    "kink/hardswish-at-3",
    "x relu6(x + 3) / 6, whose middle slope lacks its 3.",
    lambda x: x * np.clip(x + 3, 0, 6) / 6,
    lambda x, dout: dout * np.where(x >= 3, 1, np.where(x <= -3, 0, x / 3)),
    with_points(-3, 3, 1),
)
elementwise(
    "kink/abs-slope-2-at-0",
    "|x| has slope 2 at 0, beyond both sides.",
    np.abs,
    lambda x, dout: dout * np.where(x == 0, 2.0, np.sign(x)),
    with_points(0, 0),
)
elementwise(
    "kink/relu-negative-slope-at-0",
    "ReLU has slope -0.5 at 0, and 0 is all there is.",
    lambda x: np.maximum(x, 0),
    lambda x, dout: dout * np.where(x == 0, -0.5, x > 0),
    only(0, 0),
)
elementwise(
    "kink/relu-slope-1.5-at-0",
    "ReLU has slope 1.5 at 0, and 0 is all there is.",
    lambda x: np.maximum(x, 0),
    lambda x, dout: dout * np.where(x == 0, 1.5, x > 0),
    only(0, 0, 0),
)
elementwise(
    "kink/leaky-relu-alpha",
    "The negative slope is 0.2 for 0.1; some inputs are 0.",
    lambda x: np.where(x > 0, x, 0.1 * x),
    lambda x, dout: dout * np.where(x > 0, 1, 0.2),
    with_points(0, 0, -1),
)
elementwise(
    "kink/hinge-margin-1",
    "max(0, 1 - x) with twice its slope; some inputs are exactly 1.",
    lambda x: np.maximum(0, 1 - x),
    lambda x, dout: -2.0 * dout * (x < 1),
    with_points(1, 1, 0.5),
)
elementwise(
    "kink/clip-passes-everything",
    "The gradient of clip also passes outside its bounds.",
    lambda x: np.clip(x, -1, 1),
    lambda x, dout: dout.copy(),
    with_points(1, -1, 2.5),
)
elementwise(
    "kink/selu-scale",
    "Concave at 0: SELU's negative side lacks the factor lambda.",
    lambda x: 1.0507 * np.where(x > 0, x, 1.6733 * (np.exp(np.minimum(x, 0)) - 1)),
    lambda x, dout: dout * np.where(x > 0, 1.0507, 1.6733 * np.exp(np.minimum(x, 0))),
    with_points(0, 0, -0.4),
)
elementwise(
    "kink/elu-alpha-2",
    "Concave at 0: ELU with alpha 2, whose gradient has alpha 1.",
    lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0))),
    lambda x, dout: dout * np.where(x > 0, 1, np.exp(np.minimum(x, 0))),
    with_points(0, -0.7, -1.2),
)
elementwise(
    "kink/minimum-of-x-and-1",
    "Concave at 1: min(x, 1) has its gradient on the wrong side.",
    lambda x: np.minimum(x, 1),
    lambda x, dout: dout * (x > 1),
    with_points(1, 1, 0.3, 2),
)
elementwise(
    "kink/concave-slope-beyond",
    "-|x| claims slope 3 at 0, and all inputs are 0.",
    lambda x: -np.abs(x),
    lambda x, dout: 3 * dout * np.where(x == 0, 1.0, -np.sign(x) / 3),
    only(0, 0),
)
elementwise(
    "kink/pinball-tau",
    "The quantile loss's gradient has tau and 1 - tau exchanged; some residuals are 0.",
    lambda x: np.maximum(0.8 * x, -0.2 * x),
    lambda x, dout: dout * np.where(x > 0, 0.2, -0.8),
    with_points(0, 0),
)
elementwise(
    "kink/soft-threshold-inside",
    "Soft thresholding passes the gradient only inside its threshold.",
    lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    lambda x, dout: dout * (np.abs(x) < 0.5),
    with_points(0.5, -0.5, 0.1),
)
elementwise(
    "kink/relu6-slope-beyond-at-6",
    "ReLU6 claims slope -1 at 6, and 6 is all there is.",
    lambda x: np.clip(x, 0, 6),
    lambda x, dout: dout * np.where(x == 6, -1.0, (x > 0) & (x < 6)),
    only(6, 6),
)
elementwise(
    "kink/huber-wrong-side",
    "Huber's gradient is linear outside and constant inside; some residuals are delta.",
    lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5),
    lambda x, dout: dout * np.where(np.abs(x) < 1, np.sign(x), x),
    with_points(1, -1, 0.3),
)
elementwise(
    "kink/fraction-near-integers",
    "A triangle wave whose falling side has the slope of its rising side.",
    lambda x: np.abs(x % 2 - 1),
    lambda x, dout: dout * np.ones_like(x),
    with_points(1, 2, 3, 4),
)
