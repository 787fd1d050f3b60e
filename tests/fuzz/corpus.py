"""Draws planted bugs and kinds at random seeds, dtypes and scales."""

import math
from collections.abc import Callable

import numpy as np
from mutants import CASES
from mutants.kinds import KINDS

from fuzz.kinks import kinked_network
from fuzz.layers import float32_inside, in_own_dtype
from fuzz.matrices import linear_algebra
from fuzz.pointwise import composition
from fuzz.trials import Operation, Trial, against_jax
from jaxnet.crosscheck import check_layer


def planted(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a case of `mutants` at a scale between 1e-3 and 1e3."""
    case = CASES[str(rng.choice(list(CASES)))]
    dtype = rng.choice([np.float64, np.float32])
    scale = 10 ** (rng.uniform(-3, 3) if case.right else rng.uniform(-0.5, 0.5))
    layer, inputs, reference = case.make(rng, dtype, scale)
    tested_reference = reference if rng.random() < 0.1 else None
    with_reference = ", reference" if tested_reference is not None else ""
    about = f"{case.name}: {case.sentence} ({np.dtype(dtype)}, scale {scale:.1e}{with_reference})"
    wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in map(np.asarray, inputs)]

    def error() -> tuple[float, float]:
        """Returns the largest error of a leaf relative to JAX's gradient of the reference, and 1; nan for a class."""
        if not isinstance(layer, tuple):
            return math.nan, math.nan
        op = Operation(lambda xp, *x: reference(*x), lambda d, *x: layer[1](d, layer[0](*x)[1]), lambda rng: [])
        return max(against_jax(op, wide)), 1.0

    return Trial(
        lambda: check_layer(layer, *inputs, reference=tested_reference, seed=seed % 7), case.right, about, error
    )


def kind(rng: np.random.Generator, seed: int) -> Trial:
    """Draws a kind of `mutants.kinds` with a random seed."""
    names = [name for name in KINDS if "torch" not in name]
    chosen = KINDS[names[int(rng.integers(len(names)))]]
    kind_seed = int(rng.integers(1000))
    allowed = frozenset(chosen.allowed)
    description = f"{chosen.name} seed {kind_seed}: {chosen.sentence}"
    return Trial(lambda: chosen.run(kind_seed), chosen.right, description, allowed=allowed)


GROUPS: dict[str, Callable[[np.random.Generator, int], Trial]] = {
    "planted": planted,
    "kind": kind,
    "float32": float32_inside,
    "own": in_own_dtype,
    "kinks": kinked_network,
    "pointwise": composition,
    "matrices": linear_algebra,
}
