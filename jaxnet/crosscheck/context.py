"""Holds the state that the parts of a check share: options, random streams, derivations at the given point."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxnet.crosscheck.decide import Cause, Verdict, decide
from jaxnet.crosscheck.dtypes import eps_of, in_float64
from jaxnet.crosscheck.inspect.checkable import Array, Checkable, Leaves
from jaxnet.crosscheck.inspect.errors import SubjectError
from jaxnet.crosscheck.inspect.surrogate import Surrogate
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation, Derivations, Gap
from jaxnet.crosscheck.measure.half_precision import HalfPrecision, measure_half_precision
from jaxnet.crosscheck.measure.leaf import LeafMeasurement, measure_leaf
from jaxnet.crosscheck.measure.low_precision import low_precision_gap
from jaxnet.crosscheck.measure.other_points import Point
from jaxnet.crosscheck.measure.point_dtype import ChosenPoint, chosen_point
from jaxnet.crosscheck.measure.structures import Structure
from jaxnet.crosscheck.meter import OutOfTime
from jaxnet.crosscheck.streams import Stream, stream

DEFAULT_SAMPLES = 40


@dataclass(frozen=True)
class Options:
    """The options of a check, most of which the public functions describe.

    Attributes:
        samples: Elements of a wrong leaf whose derivatives are computed for its diagnosis.
        dout: The upstream gradient that the backward pass receives. Defaults to a random one.
        order: The highest derivative that is checked.
        transforms: The transformations under which the code must return the same. Defaults to cheap ones, under which
            it need not run.
        structure: The structures that leaves keep as they move, by name.
    """

    seed: int = 0
    resolution: float | None = None
    accuracy: float = 0.0
    expected: Callable[..., Any] | None = None
    max_seconds: float | None = None
    samples: int = DEFAULT_SAMPLES
    dout: Array | None = None
    order: int = 1
    transforms: tuple[str, ...] | None = None
    structure: Mapping[str, Structure] = field(default_factory=dict)


class Outcome(NamedTuple):
    """The measurement of a leaf at one point, and the decision."""

    measured: LeafMeasurement
    verdict: Verdict
    cause: Cause
    analytic: Derivation
    point: Point = Point.GIVEN
    note: str = ""
    structure: str = ""  # that the leaf keeps as it moves


class Context:
    """The state of one check.

    Args:
        checkable: The code that is checked.
        reference: The same function in JAX, or None.
        options: How the check is made.
        output: The output at the leaves in their own dtype.
    """

    point: ChosenPoint
    at: Leaves
    analytic: Derivation
    autodiff: Derivation | None
    forward: Gap | None
    low_precision: dict[str, Gap]
    half_precision: dict[str, HalfPrecision]

    def __init__(self, checkable: Checkable, reference: Checkable | None, options: Options, output: Array) -> None:
        self.checkable, self.reference, self.options, self.output = checkable, reference, options, output
        self.directions = stream(Stream.DIRECTIONS, options.seed)
        self.rounding = stream(Stream.ROUNDING, options.seed)
        self.points = stream(Stream.POINTS, options.seed)
        self.samples = stream(Stream.SAMPLES, options.seed)
        self.dout = draw_dout(checkable, output, stream(Stream.DOUT, options.seed))
        if options.dout is not None:
            self.dout = np.asarray(options.dout, output.dtype).reshape(output.shape)
        self.differentiated = Surrogate(checkable, options.expected) if options.expected else checkable
        self.sample_budget = options.samples
        self.nearby: Derivation | None = None  # with the elements of all leaves moved by a thousandth

    def derive(self, names: list[str]) -> None:
        """Evaluates the code and its reference at the given point."""
        self.point = chosen_point(self.checkable, self.output, self.dout, stream(Stream.HALF, self.options.seed))
        self.at = self.point.at
        self.autodiff, self.forward = None, None
        if not names:
            return
        self.analytic = self.derivation(self.at, names)
        if self.reference is not None:
            self._check_shape(self.reference)
            self.autodiff = self.derivation(self.at, names, self.reference)
            self.forward = self.analytic.forward_gap(self.autodiff)
        rng = stream(Stream.HALF, self.options.seed)
        self.half_precision = measure_half_precision(
            self.checkable, self.analytic, self.reference, self.dout, self.output.dtype, names, rng
        )
        others = [name for name in names if name not in self.half_precision]
        self.low_precision = low_precision_gap(self.checkable, self.analytic, self.dout, others, self.rounding)

    def _check_shape(self, reference: Checkable) -> None:
        shape, own = in_float64(reference.forward(self.at)).shape, self.analytic.output.shape
        if shape != own:
            raise SubjectError(
                f"reference: {reference.name} returns shape {shape} where {self.checkable.name} returns "
                f"{own}; expected the same function of the same arguments"
            )

    def derivation(self, at: Leaves, names: list[str], checkable: Checkable | None = None) -> Derivation:
        """Evaluates the code, or another checkable, at a point."""
        return Derivation(checkable or self.differentiated, at, in_float64(self.dout), names, self.rounding)

    def try_derivation(self, at: Leaves, names: list[str], checkable: Checkable | None = None) -> Derivation | None:
        """Evaluates the code at a point; returns None if the code rejects it, or if its output is not finite."""
        try:
            derivation = self.derivation(at, names, checkable)
        except OutOfTime:
            raise
        except Exception:  # the user's code rejects these values
            return None
        return derivation if np.isfinite(derivation.output).all() else None

    def outcome(
        self,
        name: str,
        derivations: Derivations,
        *,
        low_precision: Gap | None = None,
        half: HalfPrecision | None = None,
        start: float | None = None,
        structure: Structure | None = None,
        point: Point = Point.GIVEN,
    ) -> Outcome:
        """Measures a leaf in a derivation, and decides.

        Args:
            name: The leaf.
            derivations: The derivation that is checked, and that of the reference.
            low_precision: The gap between the gradient in the arrays' own dtype and in float64.
            half: The error of the gradient in 16 bits.
            start: The first step. Defaults to the derivation's own.
            structure: The structure that the leaf keeps as it moves.
            point: The point of the derivations.
        """
        analytic, options = derivations.analytic, self.options
        resolution = self._resolution(name, analytic)
        measured = measure_leaf(
            name, derivations, resolution, options.accuracy, self.directions, start=start, structure=structure
        )
        strict = options.resolution is not None
        if half is not None and half.relative_error <= options.accuracy:
            half = None
        verdict, cause = decide(measured, derivations.forward, low_precision, analytic.coarse, strict, half)
        return Outcome(measured, verdict, cause, analytic, point, structure=structure.name if structure else "")

    def _resolution(self, name: str, analytic: Derivation) -> float:
        """Returns the smallest relative error to be detected.

        By default it is half of the digits, those of the dtype or those in which the code actually computes.
        """
        if self.options.resolution is not None:
            return self.options.resolution
        eps = max(eps_of(self.checkable.leaves[name]), eps_of(self.at[name]), analytic.noise.relative)
        return max(math.sqrt(eps), 2 * SAFETY * self.options.accuracy)


def draw_dout(checkable: Checkable, output: Array, rng: np.random.Generator) -> Array:
    """Draws an upstream gradient with distinct, nonzero elements, or returns ones if the backward pass takes none.

    These are zeros for imaginary parts, since a loss is real.
    """
    if not checkable.takes_dout:
        is_imaginary = checkable.imaginary_outputs(output)
        return np.ones_like(output) if is_imaginary is None else (~is_imaginary).astype(output.dtype)
    drawn = rng.standard_normal(output.shape) if output.ndim else np.asarray(0.5 + rng.random())
    return drawn.astype(output.dtype)
