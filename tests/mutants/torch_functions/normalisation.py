"""Layer norm, RMS norm, batch norm, softmax and logsumexp, whose gradients have several terms."""

import torch

from mutants.torch_functions.case import Formula, shapes

EPS = 1e-5
SQUARE = shapes((4, 4))


def normalised(x, axis=1):
    return (x - x.mean(axis, keepdim=True)) * scale_of(x, axis)


def scale_of(x, axis=1):
    return torch.rsqrt(x.var(axis, keepdim=True, unbiased=False) + EPS)


def norm_gradient(dx, x, axis=1, mean=True, variance=True):
    """Returns the gradient through a normalisation, of which terms may be left out."""
    z, s = normalised(x, axis), scale_of(x, axis)
    terms = dx
    if mean:
        terms = terms - dx.mean(axis, keepdim=True)
    if variance:
        terms = terms - z * (dx * z).mean(axis, keepdim=True)
    return s * terms


layer_norm = Formula(
    "layer_norm",
    lambda x, w, b: normalised(x) * w + b,
    lambda dout, y, x, w, b: (norm_gradient(dout * w, x), (dout * normalised(x)).sum(0), dout.sum(0)),
    shapes((4, 6), (6,), (6,)),
)


def layer_norm_without(**terms):
    return lambda dout, y, x, w, b: (norm_gradient(dout * w, x, **terms), (dout * normalised(x)).sum(0), dout.sum(0))


layer_norm.wrong("mean", "the term through the mean is missing", layer_norm_without(mean=False))
layer_norm.wrong("variance", "the term through the variance is missing", layer_norm_without(variance=False))
layer_norm.wrong("weight", "dx lacks the weight", lambda dout, y, x, w, b:
                 (norm_gradient(dout, x), (dout * normalised(x)).sum(0), dout.sum(0)))  # fmt: skip
layer_norm.wrong("of_x", "dw takes x in place of the normalised x", lambda dout, y, x, w, b:
                 (norm_gradient(dout * w, x), (dout * x).sum(0), dout.sum(0)))  # fmt: skip

batch_norm = Formula(
    "batch_norm", lambda x: normalised(x, 0), lambda dout, y, x: norm_gradient(dout, x, 0), shapes((5, 3))
)
batch_norm.wrong("unbiased", "backward takes the variance over N - 1", lambda dout, y, x:
                 norm_gradient(dout, x, 0) * torch.rsqrt(x.var(0) + EPS) / scale_of(x, 0))  # fmt: skip
batch_norm.wrong("axis", "the means are over the other axis", lambda dout, y, x: norm_gradient(dout, x, 1))

rms_norm = Formula(
    "rms_norm",
    lambda x, w: x * torch.rsqrt((x * x).mean(1, keepdim=True) + EPS) * w,
    lambda dout, y, x, w: rms_gradients(dout, x, w),
    shapes((4, 6), (6,)),
)


def rms_gradients(dout, x, w, whole=True):
    r = torch.rsqrt((x * x).mean(1, keepdim=True) + EPS)
    dz = dout * w
    through = x * r**2 * (dz * x).mean(1, keepdim=True) if whole else 0
    return r * (dz - through), (dout * x * r).sum(0)


rms_norm.wrong(
    "term", "the term through the mean square is missing", lambda dout, y, x, w: rms_gradients(dout, x, w, False)
)

softmax = Formula(
    "softmax", lambda x: torch.softmax(x, 1), lambda dout, y, x: y * (dout - (y * dout).sum(1, keepdim=True)), SQUARE
)
softmax.wrong("diagonal", "only the diagonal, y (1 - y)", lambda dout, y, x: y * (1 - y) * dout)
softmax.wrong("sum", "the sum is missing", lambda dout, y, x: y * dout)
softmax.wrong("dim", "the sum is over the other dim", lambda dout, y, x: y * (dout - (y * dout).sum(0, keepdim=True)))

logsumexp = Formula(
    "logsumexp", lambda x: torch.logsumexp(x, 1), lambda dout, y, x: dout[:, None] * torch.exp(x - y[:, None]), SQUARE
)
logsumexp.wrong("unnormalised", "exp without the division by its sum", lambda dout, y, x: dout[:, None] * torch.exp(x))
logsumexp.wrong("dim", "the softmax of the other dim", lambda dout, y, x: dout[:, None] * torch.softmax(x, 0))

unit_length = Formula(
    "unit_length",
    lambda x: x / x.norm(dim=1, keepdim=True),
    lambda dout, y, x: (dout - y * (dout * y).sum(1, keepdim=True)) / x.norm(dim=1, keepdim=True),
    shapes((4, 5)),
)
unit_length.wrong("projection", "the projection is missing", lambda dout, y, x: dout / x.norm(dim=1, keepdim=True))
