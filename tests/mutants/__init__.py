"""Planted bugs in backward passes, each with the right layer."""

from mutants import behaviour, dense, losses, normalisation, pointwise, sequences, spatial, structure
from mutants.case import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "behaviour",
    "dense",
    "losses",
    "normalisation",
    "pointwise",
    "sequences",
    "spatial",
    "structure",
]
