"""Defines the slips that a diagnosis can name, the data that it is made from, and its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np

from jaxnet.crosscheck.measure.windows import Reach

Array = np.ndarray[Any, np.dtype[Any]]


class Slip(Enum):
    """A mistake that people make when they write a gradient."""

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
    CONJUGATE = auto()
    PLACE = auto()


@dataclass(frozen=True)
class Diagnosis:
    """A slip that explains the whole error of a gradient.

    Attributes:
        slip: The kind of slip.
        readings: The possible meanings of the slip, one clause each. Empty if there is only one.
        sentence: A clause for the report, in which "it" is the claimed gradient.
        whole: Whether the slip was verified for all elements, not only for the measured ones.
    """

    slip: Slip
    readings: tuple[str, ...]
    sentence: str
    whole: bool


@dataclass(frozen=True)
class DiagnosisInput:
    """The claimed and the true gradient of one leaf, and the values that a wrong formula may have used.

    Attributes:
        leaf: The name of the leaf.
        claimed: The claimed gradient.
        true: The true gradient; nan where it was not measured.
        accuracy: The error of `true`, relative to its largest element.
        probes: Tuples (direction, value, error): the true slope along a random direction is value +- error.
        leaves: The arrays that the layer has gradients for.
        dout: The upstream gradient.
        output: The output of the forward pass.
        numbers: The layer's scalars, such as a dropout rate, a stride or an eps.
        integers: The layer's integer arrays: ids and labels.
        batch: The samples of a network.
        is_complex: Whether the leaf is a part of a complex array.
        has_complex_output: Whether the last axis of `dout` and `output` holds the parts of complex numbers.
        reach: Measures the outputs that an element of the leaf reaches; None if it cannot be measured.
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
    is_complex: bool = False
    has_complex_output: bool = False
    reach: Reach | None = None
