"""Tests the decision with a table of measurements, each with its expected verdict and cause."""

import math

import numpy as np
import pytest

from jaxnet.crosscheck.decide import MAX_COARSE_TOLERANCE, MAX_TOLERANCE, Cause, Verdict, decide
from jaxnet.crosscheck.measure.derivation import SAFETY, Gap, Probe
from jaxnet.crosscheck.measure.finite_differences import Derivative, Limit, Quotient
from jaxnet.crosscheck.measure.half_precision import HalfPrecision, Origin
from jaxnet.crosscheck.measure.kinks import Element, Roughness, Tie
from jaxnet.crosscheck.measure.leaf import Coverage, LeafMeasurement
from jaxnet.crosscheck.number_format import FLOAT16

RIGHT, WRONG = Gap(0.0, 1e-9), Gap(1.0, 1e-9)


def probe(error, tolerance=1e-9):
    quotient = Quotient(2.0**-17, 0.0, tolerance / SAFETY, 0.0, (0.0, 0.0, 0.0), 0.0)
    return Probe(np.ones(1), error, 0.0, Derivative((quotient,), Limit.NONE))


def element(roughness, outside=0.0, *, alone=True):
    return Element(0, roughness, 1.0 + outside, alone, 0.0, 1.0, 1e-9)


def measurement(error=0.0, tolerance=1e-9, **fields):
    """Returns the measurement of a gradient of norm 1 with one probe."""
    usual = {
        "name": "x", "size": 1.0, "probes": (probe(error, tolerance),), "elements": (), "tie": None,
        "coverage": Coverage.WHOLE, "compared": 1, "resolution": 1e-8, "confirmed": error > tolerance,
        "limit": Limit.NONE, "is_small": False, "is_zero": False, "factor": 1.0, "weakest": 1e-9,
    }  # fmt: skip
    return LeafMeasurement(**(usual | fields))


def three(error=0.0, with_autodiff=RIGHT, autodiff=0.0, **fields):
    """Returns the same measurement with a third derivation."""
    return measurement(error, with_autodiff=with_autodiff, autodiff=(probe(autodiff),), **fields)


P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741


def half(ratio, origin=Origin.ROUNDING):
    return HalfPrecision(FLOAT16, ratio, origin=origin)


TABLE = {
    # two derivations
    "right": (measurement(), {}, P, Cause.AGREES),
    "wrong": (measurement(1.0), {}, F, Cause.ANALYTIC_WRONG),
    "wrong by a small error": (measurement(1e-8), {}, F, Cause.ANALYTIC_WRONG),
    "within tolerance": (measurement(0.9e-9), {}, P, Cause.AGREES),
    "contradicted at a single step size": (measurement(1.0, confirmed=False), {}, I, Cause.UNCONFIRMED),
    "nan": (measurement(math.nan, confirmed=False), {}, I, Cause.UNCONFIRMED),
    # accuracy of the quotients
    "inaccurate": (measurement(0.0, 2 * MAX_TOLERANCE), {}, I, Cause.UNRESOLVED),
    "just accurate enough": (measurement(0.0, 0.9 * MAX_TOLERANCE), {}, P, Cause.AGREES),
    "less accurate than the resolution": (measurement(0.0, 1e-7), {"strict": True}, I, Cause.UNRESOLVED),
    "as accurate as the resolution": (measurement(0.0, 1e-8), {"strict": True}, P, Cause.AGREES),
    "inaccurate in float32": (measurement(0.0, 2 * MAX_TOLERANCE), {"coarse": True}, P, Cause.AGREES),
    "too inaccurate for float32": (measurement(0.0, 2 * MAX_COARSE_TOLERANCE), {"coarse": True}, I, Cause.UNRESOLVED),
    "inaccurate, and wrong by more": (measurement(1.0, 2 * MAX_TOLERANCE), {}, F, Cause.ANALYTIC_WRONG),
    "inaccurate, for a coarser resolution": (measurement(0.0, 2e-4, resolution=1e-3), {}, P, Cause.AGREES),
    # rough elements
    "at a kink, between the slopes": (measurement(elements=(element(Roughness.KINK),)), {}, P, Cause.AGREES),
    "at a kink, outside": (measurement(elements=(element(Roughness.KINK, 0.5),)), {}, F, Cause.OUTSIDE_SLOPES),
    "at kinks of several outputs": (
        measurement(elements=(element(Roughness.KINK, 0.5, alone=False),)), {}, I, Cause.OUTSIDE_SLOPES,
    ),
    "curved, right": (measurement(elements=(element(Roughness.CURVED),)), {}, P, Cause.AGREES),
    "curved, wrong": (measurement(elements=(element(Roughness.CURVED, 0.5),)), {}, F, Cause.ANALYTIC_WRONG),
    "mostly unresolved": (measurement(elements=(element(Roughness.UNRESOLVED, 9.0),)), {}, I, Cause.UNRESOLVED),
    "outside the slopes of a tie": (measurement(tie=Tie(2.0, 0.0, 1.0, 0.0)), {}, F, Cause.OUTSIDE_TIED_SLOPES),
    "every element at a kink": (
        measurement(probes=(), compared=0, elements=(element(Roughness.KINK),)), {}, I, Cause.ALL_AT_KINKS,
    ),
    "every element unresolved": (
        measurement(probes=(), compared=0, elements=(element(Roughness.UNRESOLVED),)), {}, I, Cause.UNRESOLVED,
    ),
    "too many kinks": (measurement(coverage=Coverage.SPOILED), {}, I, Cause.TOO_MANY_KINKS),
    "too many kinks, and wrong": (measurement(1.0, coverage=Coverage.SPOILED), {}, I, Cause.TOO_MANY_KINKS),
    "kinks that rounding in float32 hides": (
        measurement(0.0, 1e-3, coverage=Coverage.SPOILED), {"coarse": True}, P, Cause.AGREES,
    ),
    # zero
    "zero": (measurement(is_small=True, is_zero=True), {}, I, Cause.ZERO_AT_POINT),
    "smaller than the tolerance, and not zero": (measurement(is_small=True), {}, I, Cause.LOST_IN_ROUNDING),
    # the arrays' own precision
    "right in float64, wrong in float32": (measurement(), {"low_precision": WRONG}, F, Cause.LOW_PRECISION),
    "wrong in both": (measurement(1.0), {"low_precision": WRONG}, F, Cause.ANALYTIC_WRONG),
    "right in both": (measurement(), {"low_precision": RIGHT}, P, Cause.AGREES),
    # 16 bits
    "rounded once": (measurement(), {"half": half(0.6)}, P, Cause.AGREES),
    "rounded at every step": (measurement(), {"half": half(3.0, Origin.ARITHMETIC)}, P, Cause.AGREES),
    "added in 16 bits, a few terms": (measurement(), {"half": half(3.0, Origin.ACCUMULATION)}, P, Cause.AGREES),
    "added in 16 bits": (measurement(), {"half": half(99.0, Origin.ACCUMULATION)}, F, Cause.HALF_ACCUMULATION),
    "small, and does not average out": (
        measurement(), {"half": half(3.0, Origin.SYSTEMATIC)}, I, Cause.SYSTEMATIC_ERROR,
    ),
    "beyond rounding": (measurement(), {"half": half(99.0, Origin.UNEXPLAINED)}, F, Cause.LOW_PRECISION),
    "overflow": (measurement(), {"half": half(99.0, Origin.OVERFLOW)}, F, Cause.OVERFLOW),
    "underflow": (measurement(), {"half": half(99.0, Origin.UNDERFLOW)}, F, Cause.UNDERFLOW),
    "below the range": (measurement(), {"half": half(99.0, Origin.TOO_SMALL)}, I, Cause.BEYOND_RANGE),
    "wrong in float64, and in 16 bits": (
        measurement(1.0), {"half": half(99.0, Origin.UNEXPLAINED)}, F, Cause.ANALYTIC_WRONG,
    ),
    # three derivations
    "all agree": (three(), {"forward": RIGHT}, P, Cause.AGREES),
    "analytic differs": (three(1.0, WRONG), {"forward": RIGHT}, F, Cause.ANALYTIC_WRONG),
    "analytic differs at one step": (three(1.0, WRONG, confirmed=False), {"forward": RIGHT}, I, Cause.UNCONFIRMED),
    "autodiff differs": (three(0.0, WRONG, 1.0), {"forward": RIGHT}, F, Cause.AUTODIFF_WRONG),
    "numerical differs": (three(1.0, RIGHT, 1.0), {"forward": RIGHT}, I, Cause.ONLY_NUMERICAL_DIFFERS),
    "none agree": (three(1.0, WRONG, 1.0), {"forward": RIGHT}, F, Cause.ANALYTIC_WRONG),
    "two functions": (three(0.0, WRONG), {"forward": WRONG}, F, Cause.FORWARDS_DIFFER),
    "a difference too small for quotients": (three(0.0, WRONG), {"forward": RIGHT}, F, Cause.DIFFERS_FROM_REFERENCE),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_and_its_cause_follow_from_the_numbers(name):
    measured, options, verdict, cause = TABLE[name]
    usual = {"forward": None, "low_precision": None, "coarse": False, "strict": False}
    assert decide(measured, **(usual | options)) == (verdict, cause)


def test_every_row_of_the_table_is_another_measurement():
    rows = {(repr(measured), repr(sorted(options.items()))) for measured, options, *_ in TABLE.values()}
    assert len(rows) == len(TABLE)
