"""Measures whether the error of a gradient in 16 bits is explained by rounding.

The unit of the error is the root mean square change of the gradient, computed in float64, as the leaves, `dout` and the
result are each rounded once to the format. The leaves are numbers of the format already, so they are moved at random
within half a spacing, as if they had been rounded. Arithmetic in float32 that rounds its result once has an error below
one unit, and arithmetic that rounds every step an error of a few units.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import numpy as np

from jaxnet.crosscheck.dtypes import in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.measure.derivation import Derivation
from jaxnet.crosscheck.measure.leaf_steps import copies
from jaxnet.crosscheck.measure.short_sums import CLEARLY, rms, split_that_helps
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.number_format import NumberFormat

# Limits of the ratio, from the measurements in `tests/crosscheck/half_grid.py`.
ONCE = 1.2  # the largest ratio of kernels that accumulate in float32, 1.13 there
EVERY_STEP = 10.0  # the largest ratio of arithmetic that rounds every step to the format
MODERATE = 4.0  # ratios below it need no other origin, if they average out
MAX_SYSTEMATIC = 1.5  # of the mean error over neighbours: 1.1 for rounding every step, 1.66 or more for a 1 % bug

FEW_DRAWS, MANY_DRAWS = 8, 32
NEIGHBOURHOOD = 2.0  # spacings
MAX_NOISE = 1 / 8  # of the computation that is taken as true, in units of the format's roundoff
MAX_LOSS = 8.0  # relative error, in roundoffs, that rounding the result alone may cause in a format of enough range
SCALES = (2.0**12, 2.0**-12, 2.0**6, 2.0**-6)  # factors of dout that show whether the range of the format is the cause

Backward = Callable[[Leaves, Array], Leaves]


class Origin(Enum):
    """What the error of a gradient in 16 bits comes from."""

    ROUNDING = auto()  # rounding the inputs, dout and the result once
    ARITHMETIC = auto()  # rounding every step: the error averages out over neighbouring inputs
    SYSTEMATIC = auto()  # small enough for rounding every step, but it does not average out
    ACCUMULATION = auto()  # adding many terms in the format: short sums of the same terms are right
    UNDERFLOW = auto()  # intermediate values below the format's range: right for a larger dout
    OVERFLOW = auto()  # intermediate values beyond the format's range: right for a smaller dout
    TOO_SMALL = auto()  # the gradient itself is below the format's range
    UNEXPLAINED = auto()


@dataclass(frozen=True)
class HalfPrecision:
    """The error of one leaf's gradient in a format of 16 bits.

    Args:
        format: The format.
        ratio: The error in units of that of rounding once; above `ONCE`, that at neighbouring inputs too.
        explained: The largest ratio that rounding every step explains.
        systematic: The ratio of the part that does not average out over neighbouring inputs; nan if not measured.
        origin: What the error comes from.
        relative_error: The error over the size of the gradient, both as root mean squares.
        scale: The factor of dout for which the gradient is right, for an origin in the format's range.
        split: What was split to shorten sums, as of `split_that_helps`, for an origin in accumulation.
    """

    format: NumberFormat
    ratio: float
    explained: float = EVERY_STEP
    systematic: float = math.nan
    origin: Origin = Origin.ROUNDING
    relative_error: float = math.nan
    scale: float = 1.0
    split: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether the error is at most what rounding every step explains."""
        return self.ratio <= self.explained


def measure_half_precision(
    checkable: Checkable,
    analytic: Derivation,
    reference: Checkable | None,
    dout: Array,
    dtype: np.dtype[Any],
    names: list[str],
    rng: np.random.Generator,
) -> dict[str, HalfPrecision]:
    """Measures the leaves in 16 bits, against the same code in more bits, otherwise against the reference.

    Args:
        checkable: The code that is checked.
        analytic: Its derivation, in more bits if it supports them.
        reference: The same function in JAX, or None.
        dout: The upstream gradient.
        dtype: The dtype of the output.
        names: The leaves whose gradients are compared.
        rng: Draws roundings.
    """
    halves = {name: known for name in names if (known := checkable.half_format(name)) is not None}
    if not halves:
        return {}
    runs_finer = all(analytic.at[name].dtype != checkable.leaves[name].dtype for name in halves)
    noise = {name: max(analytic.noise.relative, analytic.gradient_noise(name)) for name in halves}
    fine = [name for name, known in halves.items() if runs_finer and noise[name] <= MAX_NOISE * known.roundoff]
    sources = [(checkable, next(iter(analytic.at.values())).dtype, fine)]
    if reference is not None:
        sources.append((reference, np.dtype(np.float64), list(halves)))
    measured: dict[str, HalfPrecision] = {}
    for source, finer_dtype, leaves in sources:
        rest = [name for name in leaves if name not in measured]
        try:
            if rest:
                meter = HalfMeter(checkable, _backward_in(source, finer_dtype), dout, dtype, rng)
                measured |= meter.measure(rest)
        except OutOfTime:
            raise
        except Exception:  # the user's code rejects inputs nearby
            continue
    return measured


def _backward_in(checkable: Checkable, dtype: np.dtype[Any]) -> Backward:
    """Returns the backward pass in a finer dtype, with its gradients as float64."""

    def backward(leaves: Leaves, dout: Array) -> Leaves:
        gradients = checkable.backward({n: a.astype(dtype) for n, a in leaves.items()}, dout.astype(dtype))
        return {name: in_float64(g) for name, g in gradients.items() if g is not None}

    return backward


class HalfMeter:
    """Compares the gradients of one subject in 16 bits with those of a finer computation at the same numbers.

    Args:
        checkable: The code that is checked.
        finer: The backward pass in float64 or float32 of the same code, or of a reference.
        dout: The upstream gradient.
        dtype: The dtype of the output.
        rng: Draws roundings.
    """

    def __init__(
        self, checkable: Checkable, finer: Backward, dout: Array, dtype: np.dtype[Any], rng: np.random.Generator
    ) -> None:
        self.checkable, self.finer, self.dtype, self.rng = checkable, finer, dtype, rng
        formats = {name: checkable.half_format(name) for name in checkable.leaves}
        self.formats = {name: known for name, known in formats.items() if known is not None}
        self.coarsest = max(self.formats.values(), key=lambda known: known.roundoff)
        self.at = {name: in_float64(array) for name, array in checkable.leaves.items()}
        self.dout = self.coarsest.rounded(in_float64(dout))
        self.true = finer(self.at, self.dout)
        self.own = self.backward(self.dout)

    def backward(self, dout: Array, at: Leaves | None = None) -> Leaves:
        """Returns the gradients of the code in its own dtypes, at its own leaves or at others."""
        own = self.checkable.leaves
        leaves = copies(own) if at is None else {name: array.astype(own[name].dtype) for name, array in at.items()}
        with np.errstate(all="ignore"):
            gradients = self.checkable.backward(leaves, dout.astype(self.dtype))
        return {name: in_float64(g) for name, g in gradients.items() if g is not None}

    def output(self, at: Leaves) -> Array:
        """Returns the output of the code in its own dtypes."""
        own = self.checkable.leaves
        with np.errstate(all="ignore"):
            return in_float64(self.checkable.forward({name: a.astype(own[name].dtype) for name, a in at.items()}))

    @property
    def takes_dout(self) -> bool:
        """Whether the backward pass takes an upstream gradient."""
        return self.checkable.takes_dout

    def moved(self, roundoffs: float, formats: dict[str, NumberFormat]) -> Leaves:
        """Returns the gradients of the finer computation at inputs that are moved by random roundings."""
        at = {n: self._move(a, formats[n], roundoffs) if n in formats else a for n, a in self.at.items()}
        coarsest = max(formats.values(), key=lambda known: known.roundoff)
        dout = self._move(self.dout, coarsest, roundoffs) if self.takes_dout else self.dout
        return self.finer(at, dout)

    def _move(self, array: Array, known: NumberFormat, roundoffs: float) -> Array:
        """Moves each element by up to half a spacing; equal elements stay equal, and zeros stay zero."""
        values, places = np.unique(array, return_inverse=True)
        shifts = self.rng.uniform(-0.5, 0.5, values.shape) * roundoffs
        moved = np.where(values == 0, 0.0, values + shifts * known.spacing(values))
        return np.asarray(moved[places.reshape(array.shape)])

    def unit(self, name: str, draws: list[Leaves], known: NumberFormat) -> float:
        """Returns the root mean square error of rounding the inputs and the result once."""
        result = known.spacing(self.true[name]) / math.sqrt(12)
        changes = [rms(draw[name] - self.true[name]) for draw in draws]
        return math.hypot(rms(result), rms(np.asarray(changes)))

    def measure(self, names: list[str]) -> dict[str, HalfPrecision]:
        """Returns the measurements of those leaves for which the finer computation is finer than their format."""
        draws = [self.moved(1.0, self.formats) for _ in range(FEW_DRAWS)]
        measured = {}
        for name in names:
            known, true, own = self.formats.get(name), self.true[name], self.own[name]
            if known is None or not np.isfinite(true).all() or not true.any() or not np.isfinite(own).all():
                continue
            if all(known.holds(draw[name]) for draw in draws) or not all(np.isfinite(d[name]).all() for d in draws):
                continue
            error, unit = rms(own - true), self.unit(name, draws, known)
            half = HalfPrecision(known, error / unit, relative_error=error / rms(true))
            lost = rms(known.rounded(true) - true) > MAX_LOSS * known.roundoff * rms(true)
            if lost:
                half = replace(half, origin=Origin.TOO_SMALL)
            # The error of equal elements, as of a mean, is up to sqrt(3) times the root mean square of rounding.
            is_nearest = np.array_equal(own, known.rounded(true))
            settled = lost or is_nearest or half.ratio <= ONCE
            measured[name] = half if settled else self._explained(name, half, error, unit)
        return measured

    def _explained(self, name: str, half: HalfPrecision, error: float, unit: float) -> HalfPrecision:
        """Returns a measurement above rounding once with its origin."""
        draws = [self.moved(EVERY_STEP, self.formats) for _ in range(MANY_DRAWS)]
        changes = [rms(draw[name] - self.true[name]) for draw in draws if np.isfinite(draw[name]).all()]
        half = replace(half, explained=max(EVERY_STEP, max(changes, default=0.0) / unit))
        errors = self.errors_nearby(name)
        half = replace(half, systematic=rms(np.mean(errors, axis=0)) / unit if errors else math.inf)
        error = rms(np.asarray([self.own[name] - self.true[name], *errors]))  # that of one point varies by chance
        half = replace(half, ratio=error / unit)
        averages_out = half.systematic <= MAX_SYSTEMATIC
        if averages_out and half.ratio <= MODERATE:
            return replace(half, origin=Origin.ARITHMETIC)
        if (scale := self._right_scale(name, unit)) is not None:
            return replace(half, origin=Origin.UNDERFLOW if scale > 1 else Origin.OVERFLOW, scale=scale)
        if self.own[name].any() and (split := split_that_helps(self, name, error)) is not None:
            # that the sums are long is shown, so that the error need not exceed the rarest one that rounding causes
            usual = max(EVERY_STEP, rms(np.asarray(changes)) / unit)
            return replace(half, origin=Origin.ACCUMULATION, split=split, explained=usual)
        if not half.is_explained:
            return replace(half, origin=Origin.UNEXPLAINED)
        return replace(half, origin=Origin.ARITHMETIC if averages_out else Origin.SYSTEMATIC)

    def errors_nearby(self, name: str) -> list[Array]:
        """Returns the errors at neighbouring numbers of the format.

        Rounding errors differ from neighbour to neighbour and average out; the error of a wrong formula stays.
        """
        errors = []
        for _ in range(MANY_DRAWS):
            at = {n: self._neighbour(a, self.formats[n]) if n in self.formats else a for n, a in self.at.items()}
            dout = self._neighbour(self.dout, self.coarsest) if self.takes_dout else self.dout
            error = self.backward(dout, at)[name] - self.finer(at, dout)[name]
            if np.isfinite(error).all():
                errors.append(error)
        return errors

    def _neighbour(self, array: Array, known: NumberFormat) -> Array:
        """Returns numbers of the format at most `NEIGHBOURHOOD` spacings away."""
        return known.rounded(self._move(array, known, 2 * NEIGHBOURHOOD))

    def _right_scale(self, name: str, unit: float) -> float | None:
        """Returns a power of two for which the gradient of the scaled dout is right; None if there is none."""
        error = rms(self.own[name] - self.true[name])  # at this point alone, as that of the scaled dout
        for scale in SCALES if self.takes_dout else ():
            scaled = self.dout * scale
            if not np.array_equal(self.coarsest.rounded(scaled), scaled):  # it leaves the range itself
                continue
            gradient = self.backward(scaled)[name] / scale
            if rms(gradient - self.true[name]) <= min(EVERY_STEP * unit, error / CLEARLY):
                return scale
        return None
