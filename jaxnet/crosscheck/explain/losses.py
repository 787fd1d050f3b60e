"""Softmax, log-softmax and cross-entropy: the sum of p forgotten, over the wrong axis, targets, eps in the log."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.explain.derivatives import sigmoid
from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Slip

MOST_LOGITS = 1 << 18  # of which a whole loss is computed; of more, groups alone
Formula = Callable[[Array, Array], Array]


class Softmax(NamedTuple):
    """Probabilities of the leaf's shape: a function of an array, which sums to 1 along an axis."""

    source: Array
    function: Callable[[Array], Array]  # of (group, element)
    axis: int
    name: str


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields what is wrong in the backward of a softmax or of a loss that has one."""
    with np.errstate(all="ignore"):
        if evidence.whole.size <= MOST_LOGITS:
            for find in (_cross_entropy, _binary):
                found = next(find(evidence), None)
                if found is not None:
                    yield found
                    return
        for softmax in _softmaxes(evidence):
            for search in (_of_dout, _projected, _epsilon_of_rows):
                found = next(search(evidence, softmax), None)
                if found is not None:
                    yield found
                    return


def softmax_of(x: Array, axis: int) -> Array:
    """Returns exp(x) over its sum along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _of_rows(x: Array) -> Array:
    return softmax_of(x, 1)


def _as_it_is(y: Array) -> Array:
    return y


def _exponential(y: Array) -> Array:
    return np.exp(np.minimum(y, 0.0))


def _softmaxes(evidence: Evidence) -> Iterator[Softmax]:
    """Yields the output where it is a softmax or the log of one, and the softmax of the leaf."""
    ndim = len(evidence.shape)
    axes = [a for a in dict.fromkeys([ndim - 1, 0, min(1, ndim - 1)]) if evidence.shape[a] > 1]
    if evidence.output.shape == evidence.shape:
        for axis in axes:
            rows = evidence.groups((axis,)).pick(evidence.output)
            for name, function in (("y", _as_it_is), ("exp(y)", _exponential)):
                p = function(rows)
                if (p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-5):
                    yield Softmax(evidence.output, function, axis, name)
    if evidence.own is not None:
        for axis in axes:
            yield Softmax(evidence.own, _of_rows, axis, f"softmax({evidence.given.leaf})")


def _sum(a: Array) -> Array:
    return a.sum(axis=1, keepdims=True)


Variants = list[tuple[Slip, str, Formula]]


def _of_dout(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """The layer is a softmax or a log-softmax of the leaf, as its true gradient shows."""
    if evidence.dout.shape != evidence.shape:
        return
    n, name, axis = evidence.shape[softmax.axis], softmax.name, softmax.axis
    forgotten = f"the sum over p is forgotten: {name} * sum({name} * dout) is missing"
    yield from _variants(
        evidence,
        softmax,
        lambda d, p: p * (d - _sum(p * d)),
        [
            (Slip.SOFTMAX_SUM, f"{forgotten}, it is {name} * dout", lambda d, p: p * d),
            (
                Slip.SOFTMAX_SUM,
                f"{forgotten}, only the diagonal {name} (1 - {name}) is there",
                lambda d, p: p * (1 - p) * d,
            ),
            (
                Slip.SOFTMAX_SUM,
                f"the sum over p has a mean for the sum along axis {axis}",
                lambda d, p: p * (d - _sum(p * d) / n),
            ),
            (
                Slip.MISSING_FACTOR,
                f"the factor {name} is missing before dout - sum({name} * dout)",
                lambda d, p: d - _sum(p * d),
            ),
            (Slip.SOFTMAX_SUM, f"the sum is of dout, where {name} * dout belongs", lambda d, p: p * (d - _sum(d))),
            (
                Slip.SOFTMAX_SUM,
                f"the sum over p has the wrong sign: {name} * (dout + sum({name} * dout))",
                lambda d, p: p * (d + _sum(p * d)),
            ),
        ],
        lambda d, p, over: p * (d - (p * d).sum(axis=over, keepdims=True)),
    )
    forgotten = "the sum of dout is forgotten: it is dout - p"
    yield from _variants(
        evidence,
        softmax,
        lambda d, p: d - p * _sum(d),
        [
            (Slip.SOFTMAX_SUM, f"{forgotten}, which is right where dout sums to 1", lambda d, p: d - p),
            (Slip.SOFTMAX_SUM, f"{forgotten} * dout", lambda d, p: d - p * d),
            (
                Slip.SOFTMAX_SUM,
                f"the sum of dout has a mean for the sum along axis {axis}",
                lambda d, p: d - p * _sum(d) / n,
            ),
            (Slip.SOFTMAX_SUM, "the sum is of p * dout, where dout belongs", lambda d, p: d - p * _sum(p * d)),
            (Slip.SOFTMAX_SUM, "the sum of dout has the wrong sign", lambda d, p: d + p * _sum(d)),
            (
                Slip.SOFTMAX_SUM,
                "it is the gradient of a softmax, where that of its log belongs",
                lambda d, p: p * (d - _sum(p * d)),
            ),
        ],
        lambda d, p, over: d - p * d.sum(axis=over, keepdims=True),
    )


def _variants(
    evidence: Evidence,
    softmax: Softmax,
    right: Formula,
    variants: Variants,
    across: Callable[[Array, Array, tuple[int, ...]], Array],
) -> Iterator[Diagnosis]:
    """Yields the variant that was claimed, where `right` is the true gradient; formulas are of dout and p."""
    groups = evidence.groups((softmax.axis,))

    def made(formula: Formula) -> tuple[Array, Callable[[], Array]]:
        return groups.candidate(lambda d, source: formula(d, softmax.function(source)), evidence.dout, softmax.source)

    truth = made(right)
    if not evidence.fits(truth[0], where=groups.inside):
        return
    for slip, sentence, formula in variants:
        if evidence.matches_claimed(made(formula)[0], where=groups.inside):
            found = groups.found(slip, sentence, truth)
            if found is not None:
                yield found
    ndim = len(evidence.shape)
    p = groups.candidate(softmax.function, softmax.source)[1]()
    for over in [(a,) for a in range(ndim) if a != softmax.axis] + [tuple(range(ndim))]:
        if ndim > 1 and evidence.matches_claimed(across(evidence.dout, p, over)[evidence.index]):
            along = over[0] if len(over) == 1 else "all"
            sentence = f"the sum over p runs along the wrong axis: {along}, where {softmax.axis} is right"
            found = groups.found(Slip.SOFTMAX_AXIS, sentence, truth)
            if found is not None:
                yield found


def _variant(evidence: Evidence, right: Array, variants: list[tuple[Slip, str, Array]]) -> Iterator[Diagnosis]:
    """Yields the variant that was claimed, where `right` is the true gradient."""
    if not evidence.fits(right[evidence.index]):
        return
    for slip, sentence, made in variants:
        if evidence.matches_claimed(made[evidence.index]):
            found = evidence.found(slip, sentence, right[evidence.index], lambda: right)
            if found is not None:
                yield found


def _projected(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """What comes from above is not known: true = claimed - p sum(claimed), for any wrong factor of the last term."""
    groups, name = evidence.groups((softmax.axis,)), softmax.name

    def from_sum(claimed: Array, source: Array) -> Array:
        return claimed - softmax.function(source) * _sum(claimed)

    sentence = f"the sum over p is forgotten or wrong: {name} * sum({name} * dout), along axis {softmax.axis}"
    made = groups.candidate(from_sum, evidence.whole, softmax.source)
    if (found := groups.found(Slip.SOFTMAX_SUM, sentence, made)) is not None:
        yield found
        return

    def from_diagonal(claimed: Array, source: Array) -> Array:
        p = softmax.function(source)
        return claimed / (1 - p) - p * _sum(claimed / (1 - p))

    made = groups.candidate(from_diagonal, evidence.whole, softmax.source)
    sentence = f"the sum over p is forgotten: only the Jacobian's diagonal {name} (1 - {name}) is there"
    if (found := groups.found(Slip.SOFTMAX_SUM, sentence, made)) is not None:
        yield found


def _targets(evidence: Evidence) -> Iterator[tuple[str, Array, Array | None]]:
    """Yields targets of the shape of the leaf: name, one-hot or probabilities, labels where they are given."""
    if evidence.dout.size not in (1, evidence.whole.size) and evidence.dout.shape != evidence.shape[:-1]:
        return
    rows, classes = evidence.shape[:-1], evidence.shape[-1]
    for name, ids in evidence.given.integers.items():
        ids = np.asarray(ids)
        if ids.shape == rows and ids.size and ids.min() >= 0 and ids.max() < classes:
            yield name, (np.arange(classes) == ids[..., None]).astype(float), ids
        elif ids.shape == evidence.shape:
            yield name, ids.astype(float), None
    for name, array in evidence.leaves.items():
        if name != evidence.given.leaf and array.shape == evidence.shape and array.min() >= 0 and array.max() <= 1:
            yield name, array, None


def _upstream(evidence: Evidence) -> Iterator[tuple[Array, str]]:
    """Yields what p - t is multiplied by: dout over the number of samples, or dout itself."""
    rows = evidence.shape[:-1]
    count = int(np.prod(rows)) if rows else 1
    if evidence.dout.size == 1:
        one = evidence.dout.reshape(())
        yield one / count, "mean"
        if count > 1:
            yield one, "sum"
    elif evidence.dout.shape == rows:
        yield evidence.dout[..., None], "rows"


def _cross_entropy(evidence: Evidence) -> Iterator[Diagnosis]:
    """The leaf is the logits of a cross-entropy, as its true gradient, or the claimed one, shows."""
    if evidence.own is None or len(evidence.shape) < 2:
        return
    targets = list(_targets(evidence))
    if not targets:
        return
    p = softmax_of(evidence.own, -1)
    for name, target, labels in targets:
        for upstream, _ in _upstream(evidence):
            right = upstream * (p - target)
            rolled = [np.roll(target, by, axis=0) for by in (1, -1)]
            classes = evidence.shape[-1]
            smoothed = (p - (0.9 * target + 0.1 / classes), p - 0.95 * target - 0.05 / classes)
            variants = [
                (Slip.TARGET, f"the target {name} is not subtracted: it is p, where p - {name} belongs", upstream * p),
                (Slip.TARGET, f"the target {name} is added, where it is to be subtracted", upstream * (p + target)),
                (
                    Slip.TARGET,
                    f"the target {name} is subtracted from the logits, not from p",
                    upstream * (evidence.own - target),
                ),
                (Slip.ROW_SHIFT, f"the target {name} is shifted by one: of the row before", upstream * (p - rolled[0])),
                (Slip.ROW_SHIFT, f"the target {name} is shifted by one: of the row after", upstream * (p - rolled[1])),
                (Slip.TARGET, f"the target {name} is smoothed by 0.1 in one pass only", upstream * smoothed[0]),
                (Slip.TARGET, f"the target {name} is smoothed by 0.05 in one pass only", upstream * smoothed[1]),
                (Slip.TARGET, f"the target {name} is subtracted twice", upstream * (p - 2 * target)),
                (
                    Slip.SOFTMAX_SUM,
                    "the softmax is derived once more: p (1 - p) is there too often",
                    right * p * (1 - p),
                ),
            ]
            yield from _variant(evidence, right, variants)
            if labels is not None and evidence.matches_claimed(right[evidence.index]):
                own = np.take_along_axis(p, labels[..., None], -1)
                yield from _epsilon(evidence, own, name)


def _epsilon_of_rows(evidence: Evidence, softmax: Softmax) -> Iterator[Diagnosis]:
    """eps in the log of a softmax's loss where labels are not known: the negative element of a row is the label's.

    The claimed (p - t) / N gives p of the label, 1 + N claimed.
    """
    if softmax.axis != len(evidence.shape) - 1 or len(evidence.shape) < 2:
        return
    if evidence.dout.size != 1 or not ((evidence.whole < 0).sum(axis=-1) == 1).all():
        return
    if evidence.whole.size > MOST_LOGITS:
        return
    label = evidence.whole.argmin(axis=-1)[..., None]
    p = softmax_of(softmax.source, -1) if softmax.function is _of_rows else softmax.function(softmax.source)
    own = np.take_along_axis(p, label, -1)
    lowest = np.take_along_axis(evidence.whole, label, -1)
    factor = evidence.slope(lowest.ravel(), (own - 1).ravel())
    gap = np.abs(evidence.whole - factor * (p - (np.arange(evidence.shape[-1]) == label)))
    if gap.max() <= 1e-5 * np.abs(evidence.whole).max():
        yield from _epsilon(evidence, own, "the label")


def _epsilon(evidence: Evidence, own: Array, name: str) -> Iterator[Diagnosis]:
    """log(p + eps) in forward: each row is p / (p + eps) of what is claimed. One eps for all rows."""
    p = evidence.at(own)
    error, clear = evidence.claimed - evidence.true, np.abs(evidence.true) > 10 * evidence.tolerance
    if not clear.any():
        return
    eps = evidence.slope(error, np.where(clear, evidence.true / p, 0.0))
    spoken = float(f"{eps:.1g}") if eps > 0 else 0.0
    if not 1e-16 < spoken < 0.2:
        return
    if abs(spoken - eps) > 0.05 * eps:
        spoken = float(f"{eps:.2g}")
    sentence = (
        f"eps = {spoken:g} is in forward alone, as in log(p + {spoken:g}), with p the probability of {name}: "
        "p - t is not the derivative of that, the two do not belong together"
    )
    found = evidence.found(
        Slip.EPSILON,
        sentence,
        evidence.claimed * p / (p + eps),
        lambda: evidence.whole * own / (own + eps),
        parameters=1,
    )
    if found is not None:
        yield found


def _binary(evidence: Evidence) -> Iterator[Diagnosis]:
    """The leaf is the logits of a binary cross-entropy, or what is compared with a target in a squared error."""
    if evidence.own is None or evidence.dout.size not in (1, evidence.whole.size):
        return
    p = sigmoid(evidence.own)
    dout = evidence.dout.reshape(()) if evidence.dout.size == 1 else evidence.dout.reshape(evidence.shape)
    for name, target, _ in _targets(evidence):
        for count in (evidence.whole.size, evidence.shape[0], 1):
            upstream = dout / count
            variants = [
                (Slip.TARGET, f"the target {name} is not subtracted: it is p, where p - {name} belongs", upstream * p),
                (Slip.TARGET, f"the target {name} is added, where it is to be subtracted", upstream * (p + target)),
                (
                    Slip.TARGET,
                    f"the target {name} is subtracted from the logits, not from p",
                    upstream * (evidence.own - target),
                ),
            ]
            yield from _variant(evidence, upstream * (p - target), variants)
