"""Planted bugs: what goes wrong in backward passes, and beside each the layer as it should be."""

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
