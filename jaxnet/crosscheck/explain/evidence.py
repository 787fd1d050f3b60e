"""What a diagnosis is made from, and how a hypothesis is compared with it.

A hypothesis is a candidate for the true gradient, made from the claimed gradient, from `dout`, from the leaves. It is
compared with the true gradient wherever that was measured. Random directions along which the slope of the whole leaf
is known then verify it for the whole.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Make = Callable[[], Array]

MARGIN = 10.0  # comparisons are made at so many times the accuracy of the true gradient
FINEST = 1e-9  # the rounding of a claimed gradient in float64, which no comparison can undercut
MOST_COMPARED = 2048  # elements, for each hypothesis
MOST_GROUPED = 1 << 14  # elements of the groups over which a hypothesis sums
ENOUGH = 6.0  # digits by which a hypothesis must be better than chance; thousands are tried
DIGITS_EACH = 6.0  # the most that one element adds
PROBE_MARGIN = 4.0
LEFT_OVER = 0.1  # of the error, by norm: what an explanation may leave, or the error itself is within the accuracy


class Slip(Enum):
    """The kinds of slip that are recognised."""

    ZERO = auto()
    NAN = auto()
    FACTOR = auto()
    SIGN = auto()
    ABSOLUTE = auto()
    CLIPPED = auto()
    LINE_FACTORS = auto()
    MISSING_FACTOR = auto()
    EXTRA_FACTOR = auto()
    DOUT_ITSELF = auto()
    DERIVATIVE = auto()
    TRANSPOSED = auto()
    RESHAPED = auto()
    REVERSED = auto()
    ROLLED = auto()
    ROW_SHIFT = auto()
    BLOCKS_EXCHANGED = auto()
    PERMUTED = auto()
    CROPPED = auto()
    CUMULATIVE = auto()
    MASK_MISSING = auto()
    MASK_INVERTED = auto()
    PART_MISSING = auto()
    NEVER_WRITTEN = auto()
    PART_FACTOR = auto()
    PART_SIGN = auto()
    WRONG_AXIS = auto()
    SUMMED_TOO_MUCH = auto()
    PARTIAL_SUM = auto()
    WRONG_MULTIPLIER = auto()
    OVERWRITTEN = auto()
    AVERAGED = auto()
    SOFTMAX_SUM = auto()
    SOFTMAX_AXIS = auto()
    TARGET = auto()
    EPSILON = auto()
    MEAN_TERM = auto()
    VARIANCE_TERM = auto()
    STATISTICS = auto()
    TERM_MISSING = auto()
    TERM_EXTRA = auto()
    WRONG_PRODUCT = auto()
    EXCHANGED = auto()
    PLACE = auto()


@dataclass(frozen=True)
class Diagnosis:
    """A slip that explains the whole error.

    Attributes:
        slip: Its kind.
        readings: Everything that it may mean, each in a clause; empty where it means one thing.
        sentence: What to tell the user, a clause with "it" for the claimed gradient.
        whole: Whether it was verified for all elements, not for those alone that were measured.
    """

    slip: Slip
    readings: tuple[str, ...]
    sentence: str
    whole: bool


@dataclass(frozen=True)
class DiagnosisInput:
    """The gradient of one leaf, claimed and true, and what a wrong formula may have made it from.

    Attributes:
        leaf: Its name.
        claimed: The whole claimed gradient.
        true: The true gradient; nan where it was not measured.
        accuracy: The error of `true`, relative to its largest element.
        probes: (direction, value, error): the true slope along a direction of the whole leaf is value +- error.
        leaves: The arrays that the layer has gradients for.
        dout: The gradient from above.
        output: What forward returned.
        numbers: The layer's own scalars: a dropout rate, a stride, an eps.
        integers: Ids and labels.
        batch: The samples of a network.
    """

    leaf: str
    claimed: Array
    true: Array
    accuracy: float
    probes: tuple[tuple[Array, float, float], ...] = ()
    leaves: Mapping[str, Array] = field(default_factory=dict)
    dout: Array = field(default_factory=lambda: np.ones(()))
    output: Array = field(default_factory=lambda: np.ones(()))
    numbers: Mapping[str, float] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)
    batch: Mapping[str, Array] = field(default_factory=dict)


class Evidence:
    """A `DiagnosisInput`, prepared for comparing many hypotheses with it.

    Attributes:
        tolerance: The largest difference, absolute, that counts as none.
        relative: The same, relative to the largest element of the true gradient.
        index: Of the compared elements, for each axis.
        true: The true gradient at the compared elements.
        claimed: The claimed gradient there.
        wrong: Where these differ.
        full: Whether the true gradient is known at every element.
    """

    def __init__(self, given: DiagnosisInput) -> None:
        self.given = given
        self._groups: dict[tuple[int, ...], Groups] = {}
        whole = np.asarray(given.claimed, np.float64)
        self.whole = whole if whole.ndim else whole.reshape(1)
        self.shape = self.whole.shape
        self.whole_true = np.asarray(given.true, np.float64).reshape(self.shape)
        self.dout = np.asarray(given.dout, np.float64)
        self.output = np.asarray(given.output, np.float64)
        self.relative = MARGIN * max(given.accuracy, FINEST / MARGIN)
        self.places = np.flatnonzero(np.isfinite(self.whole_true))
        self.full = self.places.size == self.whole.size
        everywhere = self.whole_true.ravel()[self.places]
        self.scale = float(np.abs(everywhere).max(initial=0.0))
        self.tolerance = self.relative * self.scale
        self.wrong_places = self.places[~(np.abs(self.whole.ravel()[self.places] - everywhere) <= self.tolerance)]
        self.compared = self._some()
        self.index = np.unravel_index(self.compared, self.shape)
        self.true, self.claimed = self.whole_true[self.index], self.whole[self.index]
        self.error = np.abs(self.claimed - self.true)
        self.wrong = ~(self.error <= self.tolerance)
        self._digits = np.minimum(np.log10(np.maximum(self.error, self.tolerance) / (self.tolerance or 1)), DIGITS_EACH)

    def _some(self) -> Array:
        """Returns the places to compare: all, or some of the wrong ones and some of all."""
        if self.places.size <= MOST_COMPARED:
            return self.places
        half = MOST_COMPARED // 2
        return np.unique(np.concatenate([_spread(self.wrong_places, half), _spread(self.places, half)]))

    @cached_property
    def leaves(self) -> dict[str, Array]:
        """The leaves and the samples, in float64."""
        arrays = {**self.given.leaves, **self.given.batch}
        return {name: np.asarray(a, np.float64) for name, a in arrays.items() if np.asarray(a).dtype.kind in "fiub"}

    @cached_property
    def own(self) -> Array | None:
        """The values of the leaf itself."""
        values = self.leaves.get(self.given.leaf)
        return values.reshape(self.shape) if values is not None and values.size == self.whole.size else None

    @cached_property
    def digits(self) -> int:
        """How many digits of a number the comparison supports."""
        return int(min(max(1 - math.log10(self.relative), 2), 7))

    def groups(self, axes: tuple[int, ...]) -> "Groups":
        """Returns the groups of elements along some axes."""
        if axes not in self._groups:
            self._groups[axes] = Groups(self, axes)
        return self._groups[axes]

    @cached_property
    def probes(self) -> list[tuple[Array, float, float, float, float]]:
        """The probes: direction, its norm, the claimed slope along it, the true one, its error."""
        found = []
        for direction, value, error in self.given.probes:
            flat = np.ravel(direction)
            found.append((flat, math.sqrt(_dot(flat, flat)), _dot(self.whole.ravel(), flat), value, error))
        return found

    def at(self, array: Array) -> Array:
        """Returns an array, broadcast to the leaf's shape, at the compared elements."""
        return np.broadcast_to(array, self.shape)[self.index]

    def fits(self, candidate: Array, parameters: int = 0, where: Array | None = None) -> bool:
        """Returns whether a candidate for the true gradient explains the error.

        Args:
            candidate: At the compared elements.
            parameters: How many numbers in it were fitted to the true gradient.
            where: Which of the compared elements it speaks of; all by default.
        """
        chosen = slice(None) if where is None else where
        left = np.abs(candidate - self.true)[chosen]
        error = float(np.linalg.norm((self.claimed - self.true)[chosen]))
        explained = float(np.linalg.norm(left)) <= LEFT_OVER * error
        return bool((left <= self.tolerance).all()) and explained and self.strong(parameters, where)

    def strength(self) -> float:
        """Returns by how many digits the errors exceed the tolerance, all together."""
        return float(self._digits[self.wrong].sum()) + 1e-9

    def strong(self, parameters: int = 0, where: Array | None = None) -> bool:
        """Returns whether so many wrong elements are compared that an explanation of all is no accident."""
        wrong = self.wrong if where is None else self.wrong & where
        if wrong.sum() < 2:
            return False
        digits = np.sort(self._digits[wrong])[: wrong.sum() - parameters] if parameters else self._digits[wrong]
        return bool(digits.sum() >= ENOUGH - 1e-9)

    def matches_claimed(self, formula: Array, where: Array | None = None) -> bool:
        """Returns whether a formula, at the compared elements, is what was claimed."""
        tolerance = min(max(self.relative, 1e-6), 1e-3)
        claimed = self.claimed if where is None else self.claimed[where]
        gap = np.abs((formula if where is None else formula[where]) - claimed)
        size = np.abs(claimed).max(initial=0.0)
        return bool(size > 0 and claimed.size > 1 and (gap <= tolerance * size).all())

    def slope(self, values: Array, basis: Array, where: Array | None = None) -> float:
        """Returns the number c that brings c * basis nearest to values, by least squares."""
        chosen = slice(None) if where is None else where
        square = float(np.vdot(basis[chosen], basis[chosen]))
        return float(np.vdot(basis[chosen], values[chosen])) / square if square > 0 else 0.0

    def confirmed(self, make: Make | None) -> bool | None:
        """Returns whether the whole candidate is right: None where that cannot be said."""
        if make is None:
            return None
        with np.errstate(all="ignore"):
            candidate = np.ascontiguousarray(make())
        if not (np.abs(candidate.ravel()[self.places] - self.whole_true.ravel()[self.places]) <= self.tolerance).all():
            return False
        told_apart, flat = self.full, candidate.ravel()
        size = math.sqrt(_dot(flat, flat)) if self.probes else 0.0
        for direction, norm, of_claimed, value, error in self.probes:
            allowed = PROBE_MARGIN * error + 1e-13 * size * norm
            if not abs(_dot(flat, direction) - value) <= allowed:
                return False
            told_apart |= abs(of_claimed - value) > 2 * allowed
        return True if told_apart else None

    def found(
        self,
        slip: Slip,
        sentence: str,
        candidate: Array,
        make: Make | None = None,
        parameters: int = 0,
        readings: tuple[str, ...] = (),
        where: Array | None = None,
    ) -> Diagnosis | None:
        """Returns the diagnosis if the candidate explains the error, and the probes do not contradict it."""
        if not self.fits(candidate, parameters, where):
            return None
        verified = self.confirmed(make)
        return None if verified is False else Diagnosis(slip, readings, sentence, verified is True)


class Groups:
    """The elements of a leaf in groups, one for each index of the axes that are not summed over.

    Only groups that hold compared elements are taken, so that a sum costs little in a large leaf.
    """

    def __init__(self, evidence: Evidence, axes: tuple[int, ...]) -> None:
        self.evidence, self.axes = evidence, tuple(a % len(evidence.shape) for a in axes)
        self.rest = tuple(a for a in range(len(evidence.shape)) if a not in self.axes)
        sizes = tuple(evidence.shape[a] for a in self.axes)
        self.size = math.prod(sizes)
        count = evidence.compared.size
        rest_shape = tuple(evidence.shape[a] for a in self.rest)
        flat = np.zeros(count, int)
        if self.rest:
            flat = np.ravel_multi_index([evidence.index[a] for a in self.rest], rest_shape)
        groups = np.unique(flat[evidence.wrong]) if evidence.wrong.any() else np.unique(flat)
        groups = np.unique(np.concatenate([groups, np.unique(flat)[:8]]))
        groups = _spread(groups, max(MOST_GROUPED // max(self.size, 1), 4))
        self.inside = np.isin(flat, groups)
        self.group = np.searchsorted(groups, flat[self.inside])
        self.inner = np.ravel_multi_index([evidence.index[a][self.inside] for a in self.axes], sizes)
        self._picked: dict[int, tuple[Array, Array]] = {}
        self._chosen = np.unravel_index(groups, rest_shape) if self.rest else ()

    def pick(self, array: Array) -> Array:
        """Returns an array in groups, (group, element)."""
        if id(array) not in self._picked:
            moved = self._moved(array)
            picked = (moved[self._chosen] if self.rest else moved[None]).reshape(-1, self.size)
            self._picked[id(array)] = array, picked  # the array is held, so that its id stays its own
        return self._picked[id(array)][1]

    def _moved(self, array: Array) -> Array:
        return np.transpose(np.broadcast_to(array, self.evidence.shape), self.rest + self.axes)

    def candidate(self, formula: Callable[..., Array], *arrays: Array) -> tuple[Array, Make]:
        """Returns a formula of (group, element) arrays at the compared elements, and what makes the whole of it."""
        values = np.full(self.evidence.compared.size, np.nan)
        values[self.inside] = formula(*(self.pick(a) for a in arrays))[self.group, self.inner]

        def make() -> Array:
            moved = [self._moved(a) for a in arrays]
            result = formula(*(m.reshape(-1, self.size) for m in moved)).reshape(moved[0].shape)
            return np.transpose(result, np.argsort(self.rest + self.axes))

        return values, make

    def found(self, slip: Slip, sentence: str, made: tuple[Array, Make], parameters: int = 0) -> Diagnosis | None:
        """Returns the diagnosis if the candidate explains the error in these groups."""
        return self.evidence.found(slip, sentence, *made, parameters=parameters, where=self.inside)


def _dot(a: Array, b: Array) -> float:
    """Returns a sum of products, without the threads that BLAS starts for it."""
    return float(np.einsum("i,i->", a, b))


def _spread(places: Array, count: int) -> Array:
    """Returns at most `count` of the places, from first to last."""
    if places.size <= count:
        return places
    return places[np.linspace(0, places.size - 1, count).astype(int)]
