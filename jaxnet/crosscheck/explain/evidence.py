"""Compares hypotheses about a wrong gradient with the measurements.

A hypothesis is a candidate for the true gradient, computed from the claimed gradient, from `dout` or from the leaves.
The candidate is compared with the true gradient wherever that was measured. Probes, the slopes of the whole leaf along
random directions, then verify it for all elements.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from jaxnet.crosscheck.explain.slips import Array, Diagnosis, DiagnosisInput, Slip

Make = Callable[[], Array]

MARGIN = 10.0  # the tolerance of a comparison, in units of the accuracy of the true gradient
FINEST = 1e-9  # a lower bound of the relative tolerance: the rounding of a claimed gradient in float64
MOST_COMPARED = 2048  # elements compared for each hypothesis
MOST_GROUPED = 1 << 14  # elements of the groups over which a hypothesis sums
ENOUGH = 6.0  # digits by which a hypothesis must exceed chance, because thousands are tried
DIGITS_EACH = 6.0  # the most digits that one element contributes
PROBE_MARGIN = 4.0  # the tolerance of a probe, in units of its error
LEFT_OVER = 0.1  # the largest fraction of the error, by norm, that an explanation may leave


class Evidence:
    """A `DiagnosisInput`, prepared for comparing many hypotheses with it.

    Attributes:
        inputs: The `DiagnosisInput`.
        shape: The shape of the leaf; (1,) for a scalar.
        whole: The claimed gradient at all elements.
        whole_true: The true gradient at all elements; nan where it was not measured.
        relative: The largest difference that is attributed to rounding, relative to `scale`.
        tolerance: The same as an absolute difference.
        scale: The largest absolute element of the true gradient.
        places: The flat indices of the measured elements.
        wrong_places: The flat indices of those that are wrong.
        full: Whether the true gradient was measured at every element.
        compared: The flat indices of the elements that hypotheses are compared at.
        index: The same as one index array for each axis.
        true: The true gradient at the compared elements.
        claimed: The claimed gradient at the compared elements.
        wrong: Whether these differ by more than the tolerance, for each compared element.
    """

    def __init__(self, inputs: DiagnosisInput) -> None:
        self.inputs = inputs
        self._groups: dict[tuple[int, ...], Groups] = {}
        whole = np.asarray(inputs.claimed, np.float64)
        self.whole = whole if whole.ndim else whole.reshape(1)
        self.shape = self.whole.shape
        self.whole_true = np.asarray(inputs.true, np.float64).reshape(self.shape)
        self.dout = np.asarray(inputs.dout, np.float64)
        self.output = np.asarray(inputs.output, np.float64)
        self.relative = MARGIN * max(inputs.accuracy, FINEST / MARGIN)
        self.places = np.flatnonzero(np.isfinite(self.whole_true))
        self.full = self.places.size == self.whole.size
        measured = self.whole_true.ravel()[self.places]
        self.scale = float(np.abs(measured).max(initial=0.0))
        self.tolerance = self.relative * self.scale
        self.wrong_places = self.places[~(np.abs(self.whole.ravel()[self.places] - measured) <= self.tolerance)]
        self.compared = self._sampled_places()
        self.index = np.unravel_index(self.compared, self.shape)
        self.true, self.claimed = self.whole_true[self.index], self.whole[self.index]
        self.error = np.abs(self.claimed - self.true)
        self.wrong = ~(self.error <= self.tolerance)
        self._digits = np.minimum(np.log10(np.maximum(self.error, self.tolerance) / (self.tolerance or 1)), DIGITS_EACH)

    def _sampled_places(self) -> Array:
        """Returns the places to compare: all of them, or a sample half of which is taken from the wrong ones."""
        if self.places.size <= MOST_COMPARED:
            return self.places
        half = MOST_COMPARED // 2
        return np.unique(np.concatenate([_spread(self.wrong_places, half), _spread(self.places, half)]))

    @cached_property
    def leaves(self) -> dict[str, Array]:
        """The leaves and the samples, in float64."""
        arrays = {**self.inputs.leaves, **self.inputs.batch}
        return {name: np.asarray(a, np.float64) for name, a in arrays.items() if np.asarray(a).dtype.kind in "fiub"}

    @cached_property
    def own(self) -> Array | None:
        """The values of the leaf itself, or None if they are not known."""
        values = self.leaves.get(self.inputs.leaf)
        return values.reshape(self.shape) if values is not None and values.size == self.whole.size else None

    def groups(self, axes: tuple[int, ...]) -> "Groups":
        """Returns the groups of elements along some axes."""
        if axes not in self._groups:
            self._groups[axes] = Groups(self, axes)
        return self._groups[axes]

    @cached_property
    def probes(self) -> list[tuple[Array, float, float, float, float]]:
        """The probes, as (direction, norm of the direction, claimed slope, true slope, error of the true slope)."""
        probes = []
        for direction, value, error in self.inputs.probes:
            flat = np.ravel(direction)
            probes.append((flat, math.sqrt(_dot(flat, flat)), _dot(self.whole.ravel(), flat), value, error))
        return probes

    def at(self, array: Array) -> Array:
        """Returns an array, broadcast to the leaf's shape, at the compared elements."""
        return np.broadcast_to(array, self.shape)[self.index]

    def fits(self, candidate: Array, parameters: int = 0, where: Array | None = None) -> bool:
        """Returns whether a candidate for the true gradient explains the error.

        Args:
            candidate: The candidate at the compared elements.
            parameters: The number of values in it that were fitted to the true gradient. Defaults to 0.
            where: The compared elements that the candidate is defined for. Defaults to all.
        """
        chosen = slice(None) if where is None else where
        left = np.abs(candidate - self.true)[chosen]
        error = float(np.linalg.norm((self.claimed - self.true)[chosen]))
        explained = float(np.linalg.norm(left)) <= LEFT_OVER * error
        return bool((left <= self.tolerance).all()) and explained and self.strong(parameters, where)

    def strength(self) -> float:
        """Returns the digits by which the errors exceed the tolerance, summed over the compared elements."""
        return float(self._digits[self.wrong].sum()) + 1e-9

    def strong(self, parameters: int = 0, where: Array | None = None) -> bool:
        """Returns whether an explanation of all wrong elements that are compared cannot be an accident."""
        wrong = self.wrong if where is None else self.wrong & where
        if wrong.sum() < 2:
            return False
        digits = np.sort(self._digits[wrong])[: wrong.sum() - parameters] if parameters else self._digits[wrong]
        return bool(digits.sum() >= ENOUGH - 1e-9)

    def matches_claimed(self, formula: Array, where: Array | None = None) -> bool:
        """Returns whether the values of a formula at the compared elements equal the claimed gradient."""
        tolerance = min(max(self.relative, 1e-6), 1e-3)
        claimed = self.claimed if where is None else self.claimed[where]
        gap = np.abs((formula if where is None else formula[where]) - claimed)
        size = np.abs(claimed).max(initial=0.0)
        return bool(size > 0 and claimed.size > 1 and (gap <= tolerance * size).all())

    def slope(self, values: Array, basis: Array, where: Array | None = None) -> float:
        """Returns the number c for which c * basis is closest to the values, by least squares."""
        chosen = slice(None) if where is None else where
        square = float(np.vdot(basis[chosen], basis[chosen]))
        return float(np.vdot(basis[chosen], values[chosen])) / square if square > 0 else 0.0

    def confirmed(self, make: Make | None) -> bool | None:
        """Returns whether the whole candidate is right, or None if the measurements cannot tell."""
        if make is None:
            return None
        with np.errstate(all="ignore"):
            candidate = np.ascontiguousarray(make())
        if not (np.abs(candidate.ravel()[self.places] - self.whole_true.ravel()[self.places]) <= self.tolerance).all():
            return False
        distinguished, flat = self.full, candidate.ravel()
        size = math.sqrt(_dot(flat, flat)) if self.probes else 0.0
        for direction, norm, claimed_slope, value, error in self.probes:
            allowed = PROBE_MARGIN * error + 1e-13 * size * norm
            if not abs(_dot(flat, direction) - value) <= allowed:
                return False
            distinguished |= abs(claimed_slope - value) > 2 * allowed
        return True if distinguished else None

    def test(
        self,
        slip: Slip,
        sentence: str,
        candidate: Array,
        make: Make | None = None,
        parameters: int = 0,
        readings: tuple[str, ...] = (),
        where: Array | None = None,
    ) -> Iterator[Diagnosis]:
        """Yields the diagnosis if the candidate explains the error and no probe contradicts it.

        Args:
            slip: The slip of the diagnosis.
            sentence: The sentence of the diagnosis.
            candidate: The candidate for the true gradient, at the compared elements.
            make: Returns the whole candidate, which the probes are compared with. Defaults to no such comparison.
            parameters: See `fits`.
            readings: The readings of the diagnosis.
            where: See `fits`.
        """
        if self.fits(candidate, parameters, where) and (verified := self.confirmed(make)) is not False:
            yield Diagnosis(slip, readings, sentence, verified is True)


class Groups:
    """The elements of a leaf in groups that a hypothesis sums over, one group for each index of the other axes.

    Only groups that contain compared elements are used, which keeps a sum over a large leaf cheap.

    Attributes:
        axes: The axes that a group extends along.
        size: The number of elements in a group.
        inside: Whether a compared element lies in one of the groups used.
        group: The group of each of these elements.
        inner: The place of each of these elements in its group.
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
        """Returns an array of shape (group, element)."""
        if id(array) not in self._picked:
            moved = self._moved(array)
            picked = (moved[self._chosen] if self.rest else moved[None]).reshape(-1, self.size)
            self._picked[id(array)] = array, picked  # a reference to the array keeps its id from being reused
        return self._picked[id(array)][1]

    def _moved(self, array: Array) -> Array:
        return np.transpose(np.broadcast_to(array, self.evidence.shape), self.rest + self.axes)

    def candidate(self, formula: Callable[..., Array], *arrays: Array) -> tuple[Array, Make]:
        """Evaluates a formula of (group, element) arrays.

        Returns:
            The result at the compared elements, nan outside of the groups, and a function that returns the whole of it.
        """
        values = np.full(self.evidence.compared.size, np.nan)
        values[self.inside] = formula(*(self.pick(a) for a in arrays))[self.group, self.inner]

        def make() -> Array:
            moved = [self._moved(a) for a in arrays]
            result = formula(*(m.reshape(-1, self.size) for m in moved)).reshape(moved[0].shape)
            return np.transpose(result, np.argsort(self.rest + self.axes))

        return values, make

    def test(self, slip: Slip, sentence: str, made: tuple[Array, Make], parameters: int = 0) -> Iterator[Diagnosis]:
        """Yields the diagnosis if the candidate explains the error in these groups and no probe contradicts it."""
        yield from self.evidence.test(slip, sentence, *made, parameters=parameters, where=self.inside)


def _dot(a: Array, b: Array) -> float:
    """Returns a dot product without starting BLAS threads."""
    return float(np.einsum("i,i->", a, b))


def _spread(places: Array, count: int) -> Array:
    """Returns at most `count` of the places, evenly spaced."""
    if places.size <= count:
        return places
    return places[np.linspace(0, places.size - 1, count).astype(int)]
