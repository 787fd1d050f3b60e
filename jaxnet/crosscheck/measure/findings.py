"""Defines the findings of a check of behaviour, as enums and numbers."""

import math
from dataclasses import dataclass
from enum import Enum, auto


class Level(Enum):
    """The effect of a finding on the verdict."""

    FAULT = auto()  # the code is wrong: the verdict is FAIL
    WARNING = auto()  # the code is right in this check but may be wrong in others, or cannot be checked
    NOTE = auto()  # the verdict does not change


class Behaviour(Enum):
    """The kinds of findings."""

    # memory
    OVERWRITES_DOUT = auto()
    FORWARD_OVERWRITES = auto()
    BACKWARD_OVERWRITES = auto()
    REPLACES_PARAMETER = auto()
    NOT_CONTIGUOUS_DOUT = auto()
    FORTRAN_DOUT = auto()
    NEGATIVE_STRIDE_DOUT = auto()
    STRIDE_0_DOUT = auto()
    READ_ONLY_DOUT = auto()
    NOT_CONTIGUOUS_INPUT = auto()
    FORTRAN_INPUT = auto()
    NEGATIVE_STRIDE_INPUT = auto()
    STRIDE_0_INPUT = auto()
    READ_ONLY_INPUT = auto()
    INPUT_AS_PASSED = auto()
    REUSES_OUTPUT = auto()
    REUSES_GRADIENT = auto()
    LENDS_CACHE = auto()
    # state
    ADDS_UP = auto()
    RUNS_ONCE = auto()
    SECOND_BACKWARD_DIFFERS = auto()
    EARLIER_CALL = auto()
    LATER_CALL = auto()
    SHARED_BY_CLASS = auto()
    STALE_FORWARD = auto()
    STALE_BACKWARD = auto()
    WRONG_AFTER_STEP = auto()
    WRONG_IN_LATER_CALL = auto()
    OTHER_BATCH_SIZE = auto()
    ONE_BATCH_SIZE = auto()
    # call to call
    NOT_REPEATABLE = auto()
    DRAWS_AGAIN = auto()
    ROUNDS_DIFFERENTLY = auto()
    OTHER_VALUE = auto()
    # linearity
    IGNORES_DOUT = auto()
    NOT_LINEAR = auto()
    # other ways to differentiate
    FORWARD_MODE_WRONG = auto()
    FORWARD_MODE_RIGHT = auto()
    FORWARD_MODE_RAISES = auto()
    MODES_DIFFER = auto()
    PARTIAL_DIFFERS = auto()
    PARTIAL_RAISES = auto()
    UNDEFINED_DIFFERS = auto()
    UNDEFINED_RAISES = auto()
    TRANSFORM_VALUE = auto()
    TRANSFORM_GRADIENT = auto()
    TRANSFORM_RAISES = auto()
    HESSIAN_NOT_SYMMETRIC = auto()
    # form
    NO_GRADIENT = auto()
    LACKS_LEAF = auto()
    NOT_FLOATING = auto()
    WRONG_SHAPE = auto()
    ONLY_BROADCASTS = auto()
    NOT_FINITE = auto()
    OTHER_DTYPE = auto()
    FORWARD_OUT_OF_RANGE = auto()


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        kind: Its kind.
        level: Its effect on the verdict.
        leaf: The leaf or the input that it concerns; empty if it concerns all of them.
        size: The number that measures it: a difference of gradients, a factor of `dout`, the number of a call.
        detail: Further text: the message of an exception, a shape, a dtype.
    """

    kind: Behaviour
    level: Level
    leaf: str = ""
    size: float = math.nan
    detail: str = ""
