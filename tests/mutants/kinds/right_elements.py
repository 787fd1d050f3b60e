"""Derives the gradients of the right kinds element by element from values alone, without the checker.

python -m mutants.kinds.right_elements [SEED] [PART-OF-A-NAME ...]
"""

import sys
import warnings

import numpy as np

from mutants.kinds import KINDS
from mutants.kinds.right_built import Built, arguments_of_check

ELEMENTS = 8  # the number compared in each leaf
WIDE = 1e-3  # a kind with a larger step computes in single precision or less
NARROW, WIDE_ROUNDING = 1.2e-7, 2.2e-16


def compare(built, name, array, gradient, elements=ELEMENTS):
    """Returns the largest error of a leaf's elements and the resolution of the derivation, both relative."""
    if gradient.size == 0:
        return 0.0, 0.0
    finite = np.abs(array[np.isfinite(array)])
    spread = float(finite.mean()) if finite.any() else 1.0
    rounding = 1e-9 * float(np.abs(built.dout * built.run(None)).sum()) / spread  # a smaller gradient may be rounding
    scale = max(float(np.abs(gradient).max()), rounding)
    rng = np.random.default_rng(4)
    worst, resolution = 0.0, 0.0
    for place in rng.choice(gradient.size, min(elements, gradient.size), replace=False):
        index = np.unravel_index(place, gradient.shape)
        if not np.isfinite(array[index]):
            continue
        error, blur = element(built, (name, index), abs(float(array[index])) or spread, gradient, scale)
        worst, resolution = max(worst, error), max(resolution, blur)
    return worst, resolution


def element(built, place, size, gradient, scale):
    name, index = place
    claimed = float(gradient[index])
    best, slopes = (np.inf, 0.0), []
    centre = built.run((name, index, 0.0))
    rounding = NARROW if built.kind.step > WIDE else WIDE_ROUNDING
    noise = rounding * float(np.abs(built.dout * centre).sum())
    for h in size * 2.0 ** -np.arange(3, 32, 2):
        plus, minus, up, down = (built.run((name, index, s)) for s in (h, -h, h / 2, -h / 2))
        wide, close = (built.dout @ (plus - minus)) / (2 * h), (built.dout @ (up - down)) / h
        best = min(best, (abs(wide - close) + noise / h, close + (close - wide) / 3))
        slopes.append((built.dout @ (up - centre) / (h / 2), built.dout @ (centre - down) / (h / 2)))
    error, blur = abs(best[1] - claimed) / scale, best[0] / scale
    if error > max(1e-6, 3 * blur):
        for right, left in slopes[4:10]:  # at a kink, any slope between those of both sides is right
            low, high = min(left, right), max(left, right)
            outside = max(low - claimed, claimed - high, 0.0) / scale
            if abs(right - left) > 1e-3 * scale and outside < 1e-3:
                return 0.0, blur
    return max(error - 3 * blur, 0.0), blur


def verify(kind, seed=0):
    """Returns the largest relative error of a kind's gradients beyond the resolution, and the resolution."""
    if kind.true is not None:
        return kind.true(seed), 0.0, 1
    built = Built(kind, seed)
    pairs = built.run(None, backward=True)
    assert pairs, "no gradients found"
    results = []
    for name, (array, gradient) in pairs.items():
        assert np.shape(array) == gradient.shape, f"{name}: {np.shape(array)} and {gradient.shape}"
        results.append(compare(built, name, array, gradient.astype(np.float64)))
    allowed = arguments_of_check(kind, seed)[3].get("accuracy") or 0.0
    return max(0.0, max(e for e, _ in results) - allowed), max(b for _, b in results), len(results)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    np.seterr(all="ignore")
    numbers = [int(part) for part in sys.argv[1:] if part.isdigit()]
    parts = [part for part in sys.argv[1:] if not part.isdigit()] or [""]
    for kind in [k for k in KINDS.values() if k.right and any(part in k.name for part in parts)]:
        try:
            error, blur, count = verify(kind, *numbers)
            word = "ok  " if error < 1e-5 and blur < 3e-2 else "BAD "
            print(word, kind.name, f"error {error:.1e} resolution {blur:.1e} leaves {count}")
        except Exception as problem:
            print("??? ", kind.name, type(problem).__name__, str(problem)[:150])
