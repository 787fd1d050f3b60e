"""Recognizes errors in the gradient of a normalization: the terms through mean and variance, the root, its eps.

Let d be the gradient with respect to the normalized values, n the number of elements in a group, xc = x - mean and
s^2 = mean(xc^2) + eps. Then

    true = (d - mean(d) - k xc mean(d xc) / s^2) / s

with k = 1. If the claimed gradient has another k, or lacks mean(d), a projection turns it into the true one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Evidence, Groups, Make
from jaxnet.crosscheck.explain.phrases import axes_in_words
from jaxnet.crosscheck.explain.reductions import epsilons
from jaxnet.crosscheck.explain.slips import Array, Diagnosis, Slip

SMALLEST_GROUP = 3
MOST_MIXED = 1 << 17  # the largest leaf for which statistics over two sets of axes are combined
Formula = Callable[..., Array]
Variant = tuple[Slip, str, tuple[Array, Make]]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the part of a normalization's gradient that is missing or wrong, and the axes of the normalization."""
    if evidence.own is None:
        return
    for find in (_from_dout, _terms, _scales):
        for groups in groupings(evidence):
            yield from find(evidence, groups, evidence.own)


def groupings(evidence: Evidence) -> Iterator[Groups]:
    """Yields the sets of axes that a layer may normalize over."""
    ndim = len(evidence.shape)
    every = tuple(range(ndim))
    choices = [(0,), (ndim - 1,), every[1:], (0, *every[2:]), every[2:], every[-2:]]
    for axes in dict.fromkeys(c for c in choices if c):
        groups = evidence.groups(axes)
        if groups.size >= SMALLEST_GROUP and evidence.whole.size > groups.size:
            yield groups


def _mean(a: Array) -> Array:
    return a.mean(axis=1, keepdims=True)


def _projection(k: float, eps: float, centered: bool, mean_missing: bool = False) -> Formula:
    """Returns the formula of the true gradient, given a claimed one whose last term has a factor k."""

    def formula(claimed: Array, x: Array) -> Array:
        xc = x - _mean(x) if centered else x
        square = _mean(xc**2)
        base = claimed - _mean(claimed) if mean_missing else claimed
        return base + (k - 1) * xc * _mean(base * xc) / (square + eps - k * square)

    return formula


def _terms(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """Yields a wrong term through the mean, the variance, both, or the mean square."""
    made = groups.candidate(lambda c: c - _mean(c), evidence.whole)
    yield from groups.test(Slip.MEAN_TERM, _mean_term(groups), made)
    if _is_multiple(groups, x - x.mean(axis=groups.axes, keepdims=True)) or _is_multiple(groups, x):
        for centered in (True, False):
            fitting = list(_last_terms(evidence, groups, x, centered))
            if fitting:
                texts = {text for text, _ in fitting}
                text = f"it {texts.pop()}, and " if len(texts) == 1 else ""
                yield replace(fitting[0][1], sentence=_last_term(groups, centered, text))
    sentence = _both_terms(groups)
    for eps in (0.0, *epsilons(evidence)):
        made = groups.candidate(_projection(0.0, eps, True, mean_missing=True), evidence.whole, x)
        yield from groups.test(Slip.STATISTICS, sentence, made)


def _mean_term(groups: Groups) -> str:
    return f"the term through the mean is missing or wrong: the error is constant along {axes_in_words(groups.axes)}"


def _both_terms(groups: Groups) -> str:
    return f"the terms through mean and variance are missing or wrong, along {axes_in_words(groups.axes)}"


def _last_term(groups: Groups, centered: bool, text: str) -> str:
    term, error = ("variance", "x - mean") if centered else ("mean square", "x")
    along = axes_in_words(groups.axes)
    return f"the term through the {term} is missing or wrong: {text}the error is proportional to {error} along {along}"


def _wrong_last_terms(n: int) -> tuple[tuple[float, str], ...]:
    """Returns the factors k that a wrong last term may have, each in words."""
    return (
        (0.0, "is missing"),
        (float(n), "has a sum instead of a mean"),
        (n / (n - 1), "is divided by n - 1 instead of n"),
        ((n - 1) / n, "is divided by n instead of n - 1"),
        (2.0, "is added twice"),
        (0.5, "is halved"),
        (-1.0, "has the wrong sign"),
    )


def _last_terms(evidence: Evidence, groups: Groups, x: Array, centered: bool) -> Iterator[tuple[str, Diagnosis]]:
    """Yields the factors k of the last term that explain the error. Without an eps, every factor does."""
    n = groups.size
    for k, text in _wrong_last_terms(n):
        # A variance over n - 1 in forward, with eps, equals a variance over n with a smaller eps, up to a factor.
        smaller = (n - 1) / n if k == (n - 1) / n else 1.0
        for eps in (0.0, *epsilons(evidence)):
            made = groups.candidate(_projection(k, smaller * eps, centered), evidence.whole, x)
            diagnosis = next(groups.test(Slip.VARIANCE_TERM, "", made), None)
            if diagnosis is not None:
                yield text, diagnosis
                break


def _is_multiple(groups: Groups, basis: Array, of_true: bool = False) -> bool:
    """Returns whether the error, or the true gradient, is the basis times one number in each group."""
    evidence, inside = groups.evidence, groups.inside
    values = (evidence.true if of_true else evidence.claimed - evidence.true)[inside]
    at = basis[evidence.index][inside]
    square = np.bincount(groups.group, at * at)
    slope = np.bincount(groups.group, at * values) / np.where(square > 0, square, 1.0)
    gap = np.abs(values - slope[groups.group] * at)
    return bool((gap <= 4 * evidence.tolerance).all())


# The sizes of a group that a normalization divides by, as functions of x and eps.
SCALES: dict[str, Callable[[Array, float], Array]] = {
    "the standard deviation": lambda x, eps: np.sqrt(_mean((x - _mean(x)) ** 2) + eps),
    "the variance": lambda x, eps: _mean((x - _mean(x)) ** 2) + eps,
    "the root mean square": lambda x, eps: np.sqrt(_mean(x**2) + eps),
    "the norm": lambda x, eps: np.sqrt((x**2).sum(axis=1, keepdims=True) + eps),
    "the squared norm": lambda x, eps: (x**2).sum(axis=1, keepdims=True) + eps,
    "the sum": lambda x, eps: x.sum(axis=1, keepdims=True) + eps,
}


def _scales(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """Yields a scale of each group that is missing or extra, or an eps that is under the root in one pass only."""
    along = axes_in_words(groups.axes)
    if not _is_multiple(groups, evidence.whole, of_true=True):
        return
    cases = [(name, eps) for eps in (0.0, *epsilons(evidence)) for name in SCALES if not (eps and name == "the sum")]
    for name, eps in cases:
        with_eps = f" (with eps = {eps:g})" if eps else ""
        for power, role in ((1, "factor"), (-1, "divisor")):
            sentence = (
                f"{name} of {evidence.inputs.leaf} along {along}{with_eps} is missing as a {role}, "
                "or is applied once too often"
            )
            made = groups.candidate(partial(_scaled, SCALES[name], eps, power), evidence.whole, x)
            yield from groups.test(Slip.MISSING_FACTOR, sentence, made)
    for name, centered in (("the variance", True), ("the mean square", False)):
        for eps in epsilons(evidence):
            for power, which in ((1, "forward"), (-1, "backward")):
                made = groups.candidate(partial(_scaled, _root_ratio(centered), eps, power), evidence.whole, x)
                sentence = f"eps = {eps:g} is added to {name} along {along} under the root in {which} only"
                yield from groups.test(Slip.EPSILON, sentence, made)


def _scaled(scale: Callable[[Array, float], Array], eps: float, power: int, claimed: Array, x: Array) -> Array:
    return claimed * scale(x, eps) ** power


def _root_ratio(centered: bool) -> Callable[[Array, float], Array]:
    """Returns sqrt(var / (var + eps)) as a function of x and eps: the error of an eps that is in one pass only."""

    def ratio(x: Array, eps: float) -> Array:
        square = _mean((x - _mean(x)) ** 2) if centered else _mean(x**2)
        return np.sqrt(square / (square + eps))

    return ratio


def _from_dout(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """Yields the wrong formula, if the true gradient is that of a normalization of the leaf with a known `dout`."""
    if evidence.dout.shape != evidence.shape:
        return
    for gamma, factor in _gammas(evidence):
        d = evidence.dout * factor
        for centered in (True, False):
            if not _correlated(evidence, groups, groups.candidate(_gradient(0.0, centered), d, x)[0]):
                continue
            for eps in (0.0, *epsilons(evidence)):
                right = groups.candidate(_gradient(eps, centered), d, x)
                if not evidence.fits(right[0], where=groups.inside):
                    continue
                for slip, sentence, claimed in _variants(evidence, groups, x, gamma, factor, eps, centered):
                    if evidence.matches_claimed(claimed[0], where=~np.isnan(claimed[0])):
                        yield from groups.test(slip, sentence, right)
                return


def _correlated(evidence: Evidence, groups: Groups, candidate: Array) -> bool:
    """Returns whether a candidate without eps is close enough to the true gradient to try it with one."""
    a, b = candidate[groups.inside], evidence.true[groups.inside]
    return bool(np.vdot(a, b) > 0.9 * np.sqrt(np.vdot(a, a) * np.vdot(b, b)))


def _gammas(evidence: Evidence) -> Iterator[tuple[str, Array]]:
    """Yields the vectors that the normalized values may be multiplied by: 1, and the other leaves."""
    yield "", np.ones(1)
    for name, array in evidence.leaves.items():
        if name == evidence.inputs.leaf or array.ndim != 1:
            continue
        for axis, length in enumerate(evidence.shape):
            if length == array.size:
                yield name, array.reshape(tuple(-1 if a == axis else 1 for a in range(len(evidence.shape))))


def _gradient(eps: float, centered: bool, power: int = 2, k: float = 1.0, mean: bool = True) -> Formula:
    """Returns the formula of the gradient, with a factor k and a power of the root in its last term."""

    def formula(d: Array, x: Array) -> Array:
        xc = x - _mean(x) if centered else x
        root = np.sqrt(_mean(xc**2) + eps)
        first = d - _mean(d) if centered and mean else d
        return (first - k * xc * _mean(d * xc) / root**power) / root

    return formula


def _variants(
    evidence: Evidence, groups: Groups, x: Array, gamma: str, factor: Array, eps: float, centered: bool
) -> Iterator[Variant]:
    """Yields wrong formulas that people write for the gradient of a normalization."""
    d = evidence.dout * factor
    along = axes_in_words(groups.axes)
    for k, text in _wrong_last_terms(groups.size):
        made = groups.candidate(_gradient(eps, centered, k=k), d, x)
        yield Slip.VARIANCE_TERM, _last_term(groups, centered, f"it {text}, and "), made
    if centered:
        made = groups.candidate(_gradient(eps, centered, mean=False), d, x)
        yield Slip.MEAN_TERM, _mean_term(groups), made
        made = groups.candidate(_gradient(eps, centered, k=0.0, mean=False), d, x)
        yield Slip.STATISTICS, _both_terms(groups), made
    if gamma:
        values, make = groups.candidate(_gradient(eps, centered), evidence.dout, x)
        sentence = f"the multiplication by {gamma} comes after the means along {along} instead of before"
        yield Slip.STATISTICS, sentence, (values * evidence.at(factor), make)
    for power in (0, 1, 3, 4):
        made = groups.candidate(_gradient(eps, centered, power), d, x)
        yield Slip.VARIANCE_TERM, f"the last term has a wrong power of the root, along {along}", made
    for other in groupings(evidence):
        if other.axes == groups.axes:
            continue
        over = axes_in_words(other.axes)
        made = other.candidate(_gradient(eps, centered), d, x)
        yield Slip.WRONG_AXIS, f"the means are over {over}, but should be over {along}", made
        if evidence.whole.size <= MOST_MIXED:
            mixed = _mixed_axes(d, x, groups.axes, other.axes, eps, centered)
            sentence = f"the means are over {over} in backward, but over {along} in forward"
            yield Slip.WRONG_AXIS, sentence, (mixed[evidence.index], partial(np.asarray, mixed))


def _mixed_axes(
    d: Array, x: Array, forward_axes: tuple[int, ...], backward_axes: tuple[int, ...], eps: float, centered: bool
) -> Array:
    """Returns the gradient with the statistics of forward over some axes and the means of backward over others."""
    xc = x - x.mean(axis=forward_axes, keepdims=True) if centered else x
    root = np.sqrt((xc**2).mean(axis=forward_axes, keepdims=True) + eps)
    xhat = xc / root
    first = d - d.mean(axis=backward_axes, keepdims=True) if centered else d
    return (first - xhat * (d * xhat).mean(axis=backward_axes, keepdims=True)) / root
