"""Measures how the cost of a check grows with the number of parameters."""

import time
from typing import Any

import numpy as np

import numpy_ref
from jaxnet.crosscheck import check_layer


class Unexplained(numpy_ref.Affine):
    """An affine layer with a random error of 1 % in dW: no slip explains it, so all of them are tried."""

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """Returns dx, which is right."""
        dx = super().backward(dout)
        self.dW = self.dW * (1 + 0.01 * np.random.default_rng(0).standard_normal(self.dW.shape))
        return dx


def growth(largest: int) -> list[dict[str, Any]]:
    """Checks right and wrong affine layers of increasing size; prints and returns the cost."""
    rows: list[dict[str, Any]] = []
    print(f"{'parameters':>12}  {'gradient':<10} {'verdict':<13} {'forward passes':>15} {'CPU s':>8}")
    for power in range(2, largest + 1):
        for what, kind in (("right", numpy_ref.Affine), ("dW 1 % off", Unexplained)):
            rng = np.random.default_rng(0)
            D = 10**power // 50 - 1
            layer, x = kind(rng.standard_normal((D, 50)), rng.standard_normal(50)), rng.standard_normal((3, D))
            start = time.process_time()
            report = check_layer(layer, x)
            row = {
                "parameters": 10**power,
                "gradient": what,
                "verdict": str(report.verdict),
                "calls": report.calls,
                "seconds": time.process_time() - start,
            }
            rows.append(row)
            print(
                "{parameters:>12,}  {gradient:<10} {verdict:<13} {calls:>15,} {seconds:>8.2f}".format(**row), flush=True
            )
    return rows
