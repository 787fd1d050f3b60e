"""Records which elements of a matrix have wrong gradients, in a map of bounded size."""

from typing import NamedTuple

import numpy as np

from jaxnet.crosscheck.inspect.checkable import Array

MAX_CELLS = 32  # on each side of a map


class ElementErrors(NamedTuple):
    """The errors of a matrix's gradient, by cell: an element, or the largest error of a block of a larger matrix.

    Attributes:
        relative: The error of each cell over the gradient's norm; nan where no element was compared alone.
        wrong: Whether the error exceeds the tolerance.
        shape: The shape of the matrix.
        block: The shape of a cell's block; those in the last row and column may be smaller.
        compared: The number of elements that were compared alone.
    """

    relative: Array
    wrong: Array
    shape: tuple[int, int]
    block: tuple[int, int]
    compared: int


def element_errors(relative: Array, tolerance: float) -> ElementErrors | None:
    """Returns the map of a wrong leaf; None if it is no matrix.

    Args:
        relative: The error of each element over the gradient's norm; nan for those that were not compared alone.
        tolerance: The relative error of an element that noise and steps explain.
    """
    if relative.ndim != 2 or not relative.size:
        return None
    rows, columns = relative.shape
    block = -(-rows // MAX_CELLS), -(-columns // MAX_CELLS)
    padded = np.full((-(-rows // block[0]) * block[0], -(-columns // block[1]) * block[1]), -np.inf)
    padded[:rows, :columns] = np.where(np.isnan(relative), -np.inf, relative)
    blocks = padded.reshape(padded.shape[0] // block[0], block[0], padded.shape[1] // block[1], block[1])
    largest = blocks.max(axis=(1, 3))
    pooled = np.where(largest >= 0, largest, np.nan)
    return ElementErrors(pooled, largest > tolerance, (rows, columns), block, int((~np.isnan(relative)).sum()))
