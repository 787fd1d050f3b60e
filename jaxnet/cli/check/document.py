"""Puts the reports of `jaxnet check` into one JSON document, whose keys docs/shell.md describes."""

import json
import platform
import sys
from collections.abc import Sequence

import jaxnet
from jaxnet.crosscheck import Report, Verdict

SCHEMA = 1  # a key that is removed or means something else makes it 2; a new key does not
LIBRARIES = ("numpy", "jax", "torch")


def document(reports: Sequence[Report], verdict: Verdict, seed: int) -> str:
    """Returns the JSON of an object with all reports. Numbers that are not finite are null."""
    loaded = {name: getattr(sys.modules[name], "__version__", None) for name in LIBRARIES if name in sys.modules}
    data = {
        "schema": SCHEMA,
        "verdict": verdict.value,
        "seed": seed,
        "calls": sum(report.calls for report in reports),
        "seconds": sum(report.seconds for report in reports),
        "versions": {"jaxnet": jaxnet.__version__, "python": platform.python_version(), **loaded},
        "reports": [report.to_dict() for report in reports],
    }
    return json.dumps(data, indent=1, allow_nan=False)
