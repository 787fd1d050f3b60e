"""Normalisation: the terms through mean and variance, eps under the root, a factor that is one for each group.

With d for the gradient by what is normalised, n elements in a group, xc = x - mean and s^2 = mean(xc^2) + eps,

    true = (d - mean(d) - k xc mean(d xc) / s^2) / s

with k = 1. The claimed gradient has another k, or lacks mean(d), and gives the true one by a projection.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from jaxnet.crosscheck.explain.evidence import Array, Diagnosis, Evidence, Groups, Slip
from jaxnet.crosscheck.explain.reductions import epsilons
from jaxnet.crosscheck.explain.wording import axes_in_words

SMALLEST_GROUP = 3
Formula = Callable[..., Array]


def slips(evidence: Evidence) -> Iterator[Diagnosis]:
    """Yields the term of a normalisation that is missing or wrong, along the axes where one is."""
    if evidence.own is None:
        return
    with np.errstate(all="ignore"):
        for find in (_from_dout, _terms, _scales):
            for groups in groupings(evidence):
                found = next(find(evidence, groups, evidence.own), None)
                if found is not None:
                    yield found
                    return


def groupings(evidence: Evidence) -> Iterator[Groups]:
    """Yields the axes that statistics may run over."""
    ndim = len(evidence.shape)
    every = tuple(range(ndim))
    choices = [(0,), (ndim - 1,), every[1:], (0, *every[2:]), every[2:], every[-2:]]
    for axes in dict.fromkeys(c for c in choices if c):
        groups = evidence.groups(axes)
        if groups.size >= SMALLEST_GROUP and evidence.whole.size > groups.size:
            yield groups


def _mean(a: Array) -> Array:
    return a.mean(axis=1, keepdims=True)


def _without(k: float, eps: float, centred: bool, mean: bool = False) -> Formula:
    """Returns the projection that makes the true gradient of one whose last term has a factor k."""

    def formula(claimed: Array, x: Array) -> Array:
        xc = x - _mean(x) if centred else x
        square = _mean(xc**2)
        whole = square + eps
        base = claimed - _mean(claimed) if mean else claimed
        return base + (k - 1) * xc * _mean(base * xc) / (whole - k * square)

    return formula


def _terms(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The term through the mean, through the variance, through both, or through the mean square."""
    along, claimed = axes_in_words(groups.axes), evidence.whole
    sentence = f"the term through the mean is missing or wrong: the error is constant along {along}"
    made = groups.candidate(lambda c: c - _mean(c), claimed)
    if (found := groups.found(Slip.MEAN_TERM, sentence, made)) is not None:
        yield found
        return
    if not (_as_basis(groups, x - x.mean(axis=groups.axes, keepdims=True)) or _as_basis(groups, x)):
        yield from _both(evidence, groups, x)
        return
    for centred in (True, False):
        fitting = list(_last_terms(evidence, groups, x, centred))
        if not fitting:
            continue
        which = {what for what, _ in fitting}
        what = f"it {which.pop()}, " if len(which) == 1 else ""
        yield replace(fitting[0][1], sentence=_of_last_term(groups, centred, what))
        return
    yield from _both(evidence, groups, x)


def _of_last_term(groups: Groups, centred: bool, what: str) -> str:
    term, error = ("variance", "x - mean") if centred else ("mean square", "x")
    along = axes_in_words(groups.axes)
    return f"the term through the {term} is missing or wrong: {what}the error is as {error} along {along}"


def _wrong_last_terms(n: int) -> tuple[tuple[float, str], ...]:
    """Returns factors that the last term may have, and what they are."""
    return (
        (0.0, "is missing"),
        (float(n), "has a sum for the mean"),
        (n / (n - 1), "is over n - 1, where n belongs"),
        ((n - 1) / n, "is over n, where n - 1 belongs"),
        (2.0, "is there twice"),
        (0.5, "is halved"),
        (-1.0, "has the wrong sign"),
    )


def _last_terms(evidence: Evidence, groups: Groups, x: Array, centred: bool) -> Iterator[tuple[str, Diagnosis]]:
    """Yields the factors of the last term that fit. Without an eps that tells them apart, any does."""
    n = groups.size
    for k, what in _wrong_last_terms(n):
        # A variance over n - 1 in forward, with eps, is that over n with a smaller eps.
        smaller = (n - 1) / n if k == (n - 1) / n else 1.0
        for eps in (0.0, *epsilons(evidence)):
            made = groups.candidate(_without(k, smaller * eps, centred), evidence.whole, x)
            if (found := groups.found(Slip.VARIANCE_TERM, "", made)) is not None:
                yield what, found
                break


def _both(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """Mean and variance were taken for constants."""
    sentence = f"the terms through mean and variance are missing or wrong, along {axes_in_words(groups.axes)}"
    for eps in (0.0, *epsilons(evidence)):
        made = groups.candidate(_without(0.0, eps, True, mean=True), evidence.whole, x)
        if (found := groups.found(Slip.STATISTICS, sentence, made)) is not None:
            yield found
            return


def _as_basis(groups: Groups, basis: Array, of_true: bool = False) -> bool:
    """Returns whether the error, or the true gradient, is the basis times one number in each group."""
    evidence, inside = groups.evidence, groups.inside
    values = (evidence.true if of_true else evidence.claimed - evidence.true)[inside]
    at = basis[evidence.index][inside]
    square = np.bincount(groups.group, at * at)
    slope = np.bincount(groups.group, at * values) / np.where(square > 0, square, 1.0)
    gap = np.abs(values - slope[groups.group] * at)
    return bool((gap <= 4 * evidence.tolerance).all())


def _scales(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """One factor for each group: the standard deviation, its square, a norm, an eps under the root."""
    along = axes_in_words(groups.axes)
    if not _as_basis(groups, evidence.whole, of_true=True):
        return
    for eps in (0.0, *epsilons(evidence)):
        for name, scale in (
            ("the standard deviation", partial(lambda e, x: np.sqrt(_mean((x - _mean(x)) ** 2) + e), eps)),
            ("the variance", partial(lambda e, x: _mean((x - _mean(x)) ** 2) + e, eps)),
            ("the root mean square", partial(lambda e, x: np.sqrt(_mean(x**2) + e), eps)),
            ("the norm", partial(lambda e, x: np.sqrt((x**2).sum(axis=1, keepdims=True) + e), eps)),
            ("the squared norm", partial(lambda e, x: (x**2).sum(axis=1, keepdims=True) + e, eps)),
            ("the sum", partial(lambda e, x: x.sum(axis=1, keepdims=True) + e, eps)),
        ):
            if eps and name == "the sum":
                continue
            with_eps = f" (with eps = {eps:g})" if eps else ""
            for power, words in ((1, "is missing as a factor"), (-1, "is missing as a divisor")):
                made = groups.candidate(partial(lambda s, p, c, x: c * s(x) ** p, scale, power), evidence.whole, x)
                sentence = f"{name} of {evidence.given.leaf} along {along}{with_eps} {words}, or there once too often"
                if (found := groups.found(Slip.MISSING_FACTOR, sentence, made)) is not None:
                    yield found
                    return
    yield from _eps_under_the_root(evidence, groups, x)


def _eps_under_the_root(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The root has an eps in one pass, and none in the other: sqrt(var / (var + eps)) is a factor of each group."""
    along = axes_in_words(groups.axes)
    for centred, name in ((True, "the variance"), (False, "the mean square")):

        def root(x: Array, eps: float, centred: bool = centred) -> Array:
            square = _mean((x - _mean(x)) ** 2) if centred else _mean(x**2)
            return np.sqrt(square / (square + eps))

        for eps in epsilons(evidence):
            for power, which in ((1, "forward"), (-1, "backward")):
                made = groups.candidate(
                    partial(lambda e, p, r, c, x: c * r(x, e) ** p, eps, power, root), evidence.whole, x
                )
                sentence = f"eps = {eps:g} is added to {name} along {along} under the root in {which} alone"
                if (found := groups.found(Slip.EPSILON, sentence, made)) is not None:
                    yield found
                    return


def _from_dout(evidence: Evidence, groups: Groups, x: Array) -> Iterator[Diagnosis]:
    """The layer is recognised by its true gradient, made of `dout` and gamma; then the claimed one is looked for."""
    if evidence.dout.shape != evidence.shape:
        return
    for gamma, factor in _gammas(evidence):
        whole = evidence.dout * factor
        for centred in (True, False):
            if not _correlated(evidence, groups, groups.candidate(_normalised(0.0, centred), whole, x)[0]):
                continue
            for eps in (0.0, *epsilons(evidence)):
                right = groups.candidate(_normalised(eps, centred), whole, x)
                if not evidence.fits(right[0], where=groups.inside):
                    continue
                for sentence, slip, claimed in _variants(evidence, groups, x, gamma, factor, eps, centred):
                    if evidence.matches_claimed(claimed[0], where=~np.isnan(claimed[0])):
                        found = groups.found(slip, sentence, right)
                        if found is not None:
                            yield found
                return


def _correlated(evidence: Evidence, groups: Groups, candidate: Array) -> bool:
    """Returns whether a candidate without its eps comes near enough to try it with one."""
    one, other = candidate[groups.inside], evidence.true[groups.inside]
    return bool(np.vdot(one, other) > 0.9 * np.sqrt(np.vdot(one, one) * np.vdot(other, other)))


def _gammas(evidence: Evidence) -> Iterator[tuple[str, Array]]:
    yield "", np.ones(1)
    for name, array in evidence.leaves.items():
        if name == evidence.given.leaf or array.ndim != 1:
            continue
        for axis, length in enumerate(evidence.shape):
            if length == array.size:
                yield name, array.reshape(tuple(-1 if a == axis else 1 for a in range(len(evidence.shape))))


def _normalised(eps: float, centred: bool, power: int = 2, k: float = 1.0, mean: bool = True) -> Formula:
    """Returns the gradient of a normalisation: its last term times k, divided by the root to some power."""

    def formula(d: Array, x: Array) -> Array:
        xc = x - _mean(x) if centred else x
        root = np.sqrt(_mean(xc**2) + eps)
        first = d - _mean(d) if centred and mean else d
        return (first - k * xc * _mean(d * xc) / root**power) / root

    return formula


def _variants(
    evidence: Evidence, groups: Groups, x: Array, gamma: str, factor: Array, eps: float, centred: bool
) -> Iterator[tuple[str, Slip, tuple[Array, Callable[[], Array]]]]:
    """Yields what people write for the gradient of a normalisation."""
    d = evidence.dout * factor
    along = axes_in_words(groups.axes)
    for k, what in _wrong_last_terms(groups.size):
        made = groups.candidate(_normalised(eps, centred, k=k), d, x)
        yield _of_last_term(groups, centred, f"it {what}, "), Slip.VARIANCE_TERM, made
    if centred:
        made = groups.candidate(_normalised(eps, centred, mean=False), d, x)
        sentence = f"the term through the mean is missing or wrong: the error is constant along {along}"
        yield sentence, Slip.MEAN_TERM, made
        made = groups.candidate(_normalised(eps, centred, k=0.0, mean=False), d, x)
        sentence = f"the terms through mean and variance are missing or wrong, along {along}"
        yield sentence, Slip.STATISTICS, made
    if gamma:
        late = groups.candidate(_normalised(eps, centred), evidence.dout, x)
        values = late[0] * evidence.at(factor)
        yield f"{gamma} is multiplied in after the means are taken along {along}", Slip.STATISTICS, (values, late[1])
    for power in (0, 1, 3, 4):
        made = groups.candidate(_normalised(eps, centred, power), d, x)
        yield (
            f"the last term has a wrong power of the root, along {along}",
            Slip.VARIANCE_TERM,
            made,
        )
    for other in groupings(evidence):
        if other.axes == groups.axes:
            continue
        made = other.candidate(_normalised(eps, centred), d, x)
        yield f"the means run over {axes_in_words(other.axes)}, where {along} is right", Slip.WRONG_AXIS, made

        def mixed(other: Groups = other) -> tuple[Array, Callable[[], Array]]:
            """The statistics of forward, the means of backward over the other axes."""
            whole = _whole_axes(x, groups.axes, centred, eps)
            xhat, root = whole
            first = d - d.mean(axis=other.axes, keepdims=True) if centred else d
            values = (first - xhat * (d * xhat).mean(axis=other.axes, keepdims=True)) / root
            return values[evidence.index], lambda: values

        if evidence.whole.size <= 1 << 17:
            yield (
                f"the means run over {axes_in_words(other.axes)} in backward, over {along} in forward",
                Slip.WRONG_AXIS,
                mixed(),
            )


def _whole_axes(x: Array, axes: tuple[int, ...], centred: bool, eps: float) -> tuple[Array, Array]:
    """Returns x normalised over some axes, and the root."""
    xc = x - x.mean(axis=axes, keepdims=True) if centred else x
    root = np.sqrt((xc**2).mean(axis=axes, keepdims=True) + eps)
    return xc / root, root
