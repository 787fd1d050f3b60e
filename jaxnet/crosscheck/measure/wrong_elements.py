"""Finds the worst element of a wrong gradient, and differentiates a sample of elements for the diagnosis."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation

# Elements on each axis through the worst one, which show whether a whole row or block is wrong.
NEIGHBOURS_PER_AXIS = 6


@dataclass(frozen=True)
class ElementSample:
    """Derivatives with respect to some elements of a leaf, in the gradient's own unit.

    Attributes:
        true: The derivatives, of the leaf's shape; nan for elements outside the sample.
        error: The largest error of any of them.
        worst: The index of the element where gradient and derivative differ most.
    """

    true: Array
    error: float
    worst: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """The error relative to the largest derivative."""
        largest = float(np.nanmax(np.abs(self.true), initial=0.0))
        return self.error / largest if largest else math.inf


def sample_elements(
    derivation: Derivation, name: str, step: float, budget: int, rng: np.random.Generator, kinks: Collection[int] = ()
) -> ElementSample:
    """Differentiates up to `budget` elements, with four forward passes each, and finds the worst one.

    If no element of the sample is wrong, the leaf is bisected with random directions until one is found.

    Args:
        derivation: The analytic derivation, at a point where the leaf's probes fail.
        name: The leaf.
        step: The step at which the leaf's quotients are most accurate.
        budget: The number of elements.
        rng: Draws the elements.
        kinks: Flat indices of elements at kinks, which have no derivative.
    """
    claimed = derivation.gradient[name]
    true = np.full(claimed.shape, math.nan)
    chosen = np.setdiff1d(_chosen(claimed, budget, rng), list(kinks))
    error = _fill_in(derivation, name, chosen, step, true)
    if not (np.abs(claimed - true) > SAFETY * error).any() and np.isnan(true).any():
        place = _locate(derivation, name, step, rng)
        neighbours = np.setdiff1d(_with_neighbours(claimed.shape, place), list(kinks))
        error = max(error, _fill_in(derivation, name, neighbours, step, true))
    wrong = np.where(np.isnan(true), -1.0, np.abs(claimed - true))
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), claimed.shape))
    return ElementSample(true, error, worst)


def _fill_in(derivation: Derivation, name: str, places: Array, step: float, true: Array) -> float:
    """Differentiates the single elements where `true` is nan, and returns the largest error of the derivatives."""
    phi_error = 1.5 * derivation.phi_noise / step
    error = 0.0
    unit = np.zeros(true.shape)
    factor = derivation.factor(name)
    for place in [p for p in places if np.isnan(true.flat[p])]:
        unit.flat[place] = 1.0
        direction = derivation.exact(name, unit)
        unit.flat[place] = 0.0
        phi, length = derivation.phi(name, direction), float(direction.flat[place]) or 1.0
        D1, D2 = ((phi(j * step) - phi(-j * step)) / (2 * j * step) / length for j in (1, 2))
        true.flat[place] = (4 * D1 - D2) / 3 / factor
        error = max(error, abs(D1 - D2) / 3 + phi_error)
    return error / factor


def _chosen(claimed: Array, budget: int, rng: np.random.Generator) -> Array:
    """Returns the flat indices of all elements, or of the largest, some zeros, the first, the last and random ones."""
    if claimed.size <= budget:
        return np.arange(claimed.size)
    flat = np.abs(claimed).ravel()
    quarter = max(budget // 4, 1)
    largest = np.argpartition(flat, -quarter)[-quarter:]
    zeros = np.flatnonzero(flat == 0)
    zeros = rng.choice(zeros, min(len(zeros), max(budget // 8, 1)), replace=False)
    first_and_last = np.array([0, claimed.size - 1])
    random = rng.choice(claimed.size, budget, replace=False)
    return np.array(list(dict.fromkeys(np.concatenate([largest, zeros, first_and_last, random]).tolist()))[:budget])


def _locate(derivation: Derivation, name: str, step: float, rng: np.random.Generator) -> int:
    """Returns the flat index of a wrong element, by bisection: one central difference along each half."""
    G = derivation.scaled_gradient(name).ravel()
    suspects = np.arange(G.size)

    def error_of(group: Array) -> float:
        direction = np.zeros(G.size)
        direction[group] = rng.choice([-1.0, 1.0], group.size) * rng.uniform(0.5, 1.0, group.size)
        direction = derivation.exact(name, direction.reshape(derivation.at[name].shape))
        phi = derivation.phi(name, direction)
        return abs(float(G @ direction.ravel()) - (phi(step) - phi(-step)) / (2 * step))

    while suspects.size > 1:
        halves = np.array_split(suspects, 2)
        suspects = max(halves, key=error_of)
    return int(suspects[0])


def _with_neighbours(shape: tuple[int, ...], place: int) -> Array:
    """Returns the flat indices of an element and of others on every axis through it."""
    index = np.unravel_index(place, shape)
    places = [place]
    for axis, size in enumerate(shape):
        for i in np.unique(np.linspace(0, size - 1, min(size, NEIGHBOURS_PER_AXIS)).astype(int)):
            places.append(int(np.ravel_multi_index((*index[:axis], i, *index[axis + 1 :]), shape)))
    return np.array(list(dict.fromkeys(places)))
