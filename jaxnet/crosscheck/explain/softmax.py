"""Recognizes errors in the gradient of a softmax or a log-softmax: a sum over p that is forgotten or wrong."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence, Make
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

Formula = Callable[[Array, Array], Array]
SumOverAxes = Callable[[Array, Array, tuple[int, ...]], Array]


class Softmax(NamedTuple):
    """Probabilities of the leaf's shape.

    Attributes:
        source: The array that the probabilities are computed from.
        function: Computes them from `source`, both of shape (group, element).
        axis: The axis along which they sum to 1.
        name: Their name in a sentence.
    """

    source: Array
    function: Callable[[Array], Array]
    axis: int
    name: str


def slips(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """Yields the error in the gradient of a softmax or a log-softmax."""
    yield from _softmax_of_leaf(evidence, softmax)
    yield from _log_softmax_of_leaf(evidence, softmax)
    yield from _unknown_dout(evidence, softmax)


def softmax_of(x: Array, axis: int) -> Array:
    """Returns exp(x) divided by its sum along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_of_rows(x: Array) -> Array:
    """Returns the softmax of (group, element) arrays."""
    return softmax_of(x, 1)


def _identity(y: Array) -> Array:
    return y


def _exponential(y: Array) -> Array:
    return np.exp(np.minimum(y, 0.0))


def softmaxes(evidence: Evidence) -> Iterator[Softmax]:
    """Yields the output, if it is a softmax or the log of one, and the softmax of the leaf."""
    ndim = len(evidence.shape)
    axes = [a for a in dict.fromkeys([ndim - 1, 0, min(1, ndim - 1)]) if evidence.shape[a] > 1]
    if evidence.output.shape == evidence.shape:
        for axis in axes:
            rows = evidence.groups((axis,)).pick(evidence.output)
            for name, function in (("y", _identity), ("exp(y)", _exponential)):
                p = function(rows)
                if (p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-5):
                    yield Softmax(evidence.output, function, axis, name)
    if evidence.own is not None:
        for axis in axes:
            yield Softmax(evidence.own, softmax_of_rows, axis, f"softmax({evidence.inputs.leaf})")


def _sum(a: Array) -> Array:
    return a.sum(axis=1, keepdims=True)


def _softmax_of_leaf(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """Yields the error if the true gradient is that of a softmax."""
    n, p_, axis = evidence.shape[softmax.axis], softmax.name, softmax.axis
    forgotten = "the sum over p is forgotten"
    variants: list[tuple[Slip, str, Formula]] = [
        (Slip.SOFTMAX_SUM, f"{forgotten}: it is {p_} * dout, without - {p_} * sum({p_} * dout)", lambda d, p: p * d),
        (
            Slip.SOFTMAX_SUM,
            f"{forgotten}: only the diagonal {p_} (1 - {p_}) of the Jacobian is there",
            lambda d, p: p * (1 - p) * d,
        ),
        (
            Slip.SOFTMAX_SUM,
            f"a mean is taken instead of the sum over p along axis {axis}",
            lambda d, p: p * (d - _sum(p * d) / n),
        ),
        (
            Slip.MISSING_FACTOR,
            f"the factor {p_} is missing before dout - sum({p_} * dout)",
            lambda d, p: d - _sum(p * d),
        ),
        (Slip.SOFTMAX_SUM, f"the sum is over dout, but should be over {p_} * dout", lambda d, p: p * (d - _sum(d))),
        (
            Slip.SOFTMAX_SUM,
            f"the sum over p has the wrong sign: {p_} * (dout + sum({p_} * dout))",
            lambda d, p: p * (d + _sum(p * d)),
        ),
    ]
    yield from _variants(
        evidence,
        softmax,
        lambda d, p: p * (d - _sum(p * d)),
        variants,
        lambda d, p, axes: p * (d - (p * d).sum(axis=axes, keepdims=True)),
    )


def _log_softmax_of_leaf(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """Yields the error if the true gradient is that of a log-softmax."""
    n, axis = evidence.shape[softmax.axis], softmax.axis
    forgotten = "the sum of dout is forgotten: it is dout - p"
    variants: list[tuple[Slip, str, Formula]] = [
        (Slip.SOFTMAX_SUM, f"{forgotten}, which is right only if dout sums to 1", lambda d, p: d - p),
        (Slip.SOFTMAX_SUM, f"{forgotten} * dout", lambda d, p: d - p * d),
        (
            Slip.SOFTMAX_SUM,
            f"a mean is taken instead of the sum of dout along axis {axis}",
            lambda d, p: d - p * _sum(d) / n,
        ),
        (Slip.SOFTMAX_SUM, "the sum is over p * dout, but should be over dout", lambda d, p: d - p * _sum(p * d)),
        (Slip.SOFTMAX_SUM, "the sum of dout has the wrong sign", lambda d, p: d + p * _sum(d)),
        (
            Slip.SOFTMAX_SUM,
            "it is the gradient of a softmax, but should be that of its log",
            lambda d, p: p * (d - _sum(p * d)),
        ),
    ]
    yield from _variants(
        evidence,
        softmax,
        lambda d, p: d - p * _sum(d),
        variants,
        lambda d, p, axes: d - p * d.sum(axis=axes, keepdims=True),
    )


def _variants(
    evidence: Evidence,
    softmax: Softmax,
    right: Formula,
    variants: list[tuple[Slip, str, Formula]],
    sum_over: SumOverAxes,
) -> Iterator[Diagnosis]:
    """Yields the wrong formula that the claimed gradient equals, if the right one equals the true gradient.

    All formulas are functions of dout and p. `sum_over` is the right one with its sum taken over other axes.
    """
    if evidence.dout.shape != evidence.shape:
        return
    groups = evidence.groups((softmax.axis,))

    def evaluated(formula: Formula) -> tuple[Array, Make]:
        return groups.candidate(lambda d, source: formula(d, softmax.function(source)), evidence.dout, softmax.source)

    truth = evaluated(right)
    if not evidence.fits(truth[0], where=groups.inside):
        return
    for slip, sentence, formula in variants:
        if evidence.matches_claimed(evaluated(formula)[0], where=groups.inside):
            yield from groups.test(slip, sentence, truth)
    ndim = len(evidence.shape)
    p = groups.candidate(softmax.function, softmax.source)[1]()
    for axes in [(a,) for a in range(ndim) if a != softmax.axis] + [tuple(range(ndim))]:
        if ndim > 1 and evidence.matches_claimed(sum_over(evidence.dout, p, axes)[evidence.index]):
            along = f"axis {axes[0]}" if len(axes) == 1 else "all axes"
            sentence = f"the sum over p is taken along the wrong axis: along {along} instead of axis {softmax.axis}"
            yield from groups.test(Slip.SOFTMAX_AXIS, sentence, truth)


def _unknown_dout(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """Yields a wrong sum over p where the upstream gradient of the softmax is not known.

    If only the sum's factor is wrong, true = claimed - p sum(claimed).
    """
    groups, p_ = evidence.groups((softmax.axis,)), softmax.name

    def from_sum(claimed: Array, source: Array) -> Array:
        return claimed - softmax.function(source) * _sum(claimed)

    def from_diagonal(claimed: Array, source: Array) -> Array:
        p = softmax.function(source)
        return claimed / (1 - p) - p * _sum(claimed / (1 - p))

    sentence = f"the sum over p is forgotten or wrong: {p_} * sum({p_} * dout), along axis {softmax.axis}"
    made = groups.candidate(from_sum, evidence.whole, softmax.source)
    yield from groups.test(Slip.SOFTMAX_SUM, sentence, made)
    sentence = f"the sum over p is forgotten: only the diagonal {p_} (1 - {p_}) of the Jacobian is there"
    made = groups.candidate(from_diagonal, evidence.whole, softmax.source)
    yield from groups.test(Slip.SOFTMAX_SUM, sentence, made)
