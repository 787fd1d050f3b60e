"""Finds where a wrong gradient is wrong, and derives a sample of its elements by differences, for the diagnosis."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array
from jaxnet.crosscheck.measure.derivation import SAFETY, Derivation

ALONG_AN_AXIS = 6  # elements beside the worst one, on every axis, that show whether a row or a block is wrong


@dataclass(frozen=True)
class Sample:
    """Derivatives by some elements of a leaf, in the gradient's own unit.

    Attributes:
        true: Of the leaf's shape; nan where nothing was derived.
        error: How far any of them may be off.
        worst: The index of the element where gradient and derivative are farthest apart.
    """

    true: Array
    error: float
    worst: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """The error relative to the largest derivative."""
        largest = float(np.nanmax(np.abs(self.true), initial=0.0))
        return self.error / largest if largest else math.inf


def sample(
    derivation: Derivation, name: str, step: float, budget: int, rng: np.random.Generator, kinks: Collection[int] = ()
) -> Sample:
    """Derives up to `budget` elements with four forward passes each, and finds the worst one.

    Where the sample meets no wrong element, the leaf is halved with random directions until one is found.

    Args:
        derivation: The analytic derivation, at a point where the leaf's probes fail.
        name: The leaf.
        step: The step at which the leaf's quotients are best.
        budget: The number of elements.
        rng: Draws the elements.
        kinks: Flat indices of elements at kinks, which have no derivative.
    """
    claimed = derivation.gradient[name]
    true = np.full(claimed.shape, math.nan)
    chosen = np.setdiff1d(_chosen(claimed, budget, rng), list(kinks))
    error = _derive(derivation, name, chosen, step, true)
    if not (np.abs(claimed - true) > SAFETY * error).any() and np.isnan(true).any():
        place = _locate(derivation, name, step, rng)
        beside = np.setdiff1d(_beside(claimed.shape, place), list(kinks))
        error = max(error, _derive(derivation, name, beside, step, true))
    wrong = np.where(np.isnan(true), -1.0, np.abs(claimed - true))
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), claimed.shape))
    return Sample(true, error, worst)


def _derive(derivation: Derivation, name: str, places: Array, step: float, true: Array) -> float:
    places = np.array([p for p in places if np.isnan(true.flat[p])], dtype=int)
    values, error = derivation.by_element(name, places, step)
    true.flat[places] = values
    return error


def _chosen(claimed: Array, budget: int, rng: np.random.Generator) -> Array:
    """Chooses all elements, or the largest, some zeros, the corners and random ones."""
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
    """Halves the leaf, with one central difference a half, and follows the half with the larger error."""
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


def _beside(shape: tuple[int, ...], place: int) -> Array:
    """Returns a place and its neighbours along every axis."""
    index = np.unravel_index(place, shape)
    places = [place]
    for axis, size in enumerate(shape):
        for i in np.unique(np.linspace(0, size - 1, min(size, ALONG_AN_AXIS)).astype(int)):
            places.append(int(np.ravel_multi_index((*index[:axis], i, *index[axis + 1 :]), shape)))
    return np.array(list(dict.fromkeys(places)))
