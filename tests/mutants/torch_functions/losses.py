"""Losses, with their factors."""

import torch

from mutants.torch_functions.case import Formula, normal, shapes


def labelled(generator):
    return normal(generator, 5, 4), torch.randint(4, (5,), generator=generator)


def one_hot(x, t):
    return torch.nn.functional.one_hot(t, x.shape[1]).to(x)


squared = Formula(
    "squared_error",
    lambda x, t: ((x - t) ** 2).mean(),
    lambda dout, y, x, t: (dout * 2 * (x - t) / x.numel(), -dout * 2 * (x - t) / x.numel()),
    shapes((4, 3), (4, 3)),
)
squared.wrong("mean", "divided by N and not by all elements", lambda dout, y, x, t:
              (dout * 2 * (x - t) / len(x), -dout * 2 * (x - t) / len(x)))  # fmt: skip
squared.wrong("target", "the gradient of the target has no minus", lambda dout, y, x, t:
              (dout * 2 * (x - t) / x.numel(), dout * 2 * (x - t) / x.numel()))  # fmt: skip
squared.wrong("no_dout", "dout is left out", lambda dout, y, x, t:
              (2 * (x - t) / x.numel(), -2 * (x - t) / x.numel()))  # fmt: skip

cross_entropy = Formula(
    "cross_entropy",
    lambda x, t: torch.nn.functional.cross_entropy(x, t),
    lambda dout, y, x, t: dout * (torch.softmax(x, 1) - one_hot(x, t)) / len(x),
    labelled,
)
cross_entropy.wrong("batch", "not divided by N", lambda dout, y, x, t: dout * (torch.softmax(x, 1) - one_hot(x, t)))
cross_entropy.wrong(
    "labels", "the labels are not subtracted", lambda dout, y, x, t: dout * torch.softmax(x, 1) / len(x)
)

with_logits = Formula(
    "binary_with_logits",
    lambda x, t: torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="sum"),
    lambda dout, y, x, t: (dout * (torch.sigmoid(x) - t), -dout * x),
    shapes((6,), (6,)),
)
with_logits.wrong("mean", "a mean where forward has a sum",
                  lambda dout, y, x, t: (dout * (torch.sigmoid(x) - t) / x.numel(), -dout * x))  # fmt: skip

huber = Formula(
    "huber",
    lambda x: torch.where(x.abs() < 1, x * x / 2, x.abs() - 0.5).sum(),
    lambda dout, y, x: dout * x.clamp(-1, 1),
    lambda generator: (2 * normal(generator, 8),),
)
huber.wrong("no_clamp", "quadratic everywhere", lambda dout, y, x: dout * x)
