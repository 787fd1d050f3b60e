"""Describes what decides the bits of a run beside its arguments: machine, settings, versions and source.

A run that is resumed under another description continues, with numbers that differ by rounding or more.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import jaxnet

SETTINGS = (
    "jax_allow_f16_reductions", "jax_compiler_enable_remat_pass", "jax_default_prng_impl", "jax_disable_jit",
    "jax_disable_most_optimizations", "jax_enable_custom_prng", "jax_enable_x64", "jax_exec_time_optimization_effort",
    "jax_high_dynamic_range_gumbel", "jax_memory_fitting_effort", "jax_memory_fitting_level",
    "jax_numpy_dtype_promotion", "jax_optimization_level", "jax_softmax_custom_jvp", "jax_threefry_partitionable",
    "jax_use_direct_linearize", "jax_use_shardy_partitioner",
)  # fmt: skip
"""Settings of JAX that select dtypes, random bits, derivatives, or the optimizations of a program."""

MATMUL_PRECISION = "jax_default_matmul_precision"

SOURCES = (
    "compiled_run", "compiled_steps", "device_data", "fit", "matmul_layout", "random_batches", "run_plan",
    "sample_sources", "sharding", "step", "step_config",
)  # fmt: skip
"""Modules of `jaxnet.train` whose code is in the compiled programs, or chooses what they get, as all of `jaxnet.nn`."""

HARMLESS_FLAGS = re.compile(r"--xla_(dump_\w+|force_host_platform_device_count)(=|$)")
VECTOR_INSTRUCTIONS = re.compile(r"ss?se\w*|avx\w*|fma\w*|f16c|amx\w*|asimd\w*|sve\w*|bf16|fphp|i8mm")


def execution(mesh: Mesh | None = None) -> dict[str, str]:
    """Describes how a run is executed: with the same description and arguments, a run has the same bits.

    Args:
        mesh: The devices that the run is divided between, as for `fit`. Defaults to a single one.

    Returns:
        Texts by name: versions of libraries, devices, settings of JAX, `XLA_FLAGS` without those that change no number,
        a digest of each source file of a step, and on a CPU the number of cores and the vector instructions.

    Example:
        >>> execution()["setting jax_enable_x64"]
        'False'
    """
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    shape = {"batch": 1, "model": 1} if mesh is None else dict(mesh.shape)
    described = {
        "version of jaxnet": jaxnet.__version__,
        **{f"version of {name}": importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax")},
        "device": f"{device.platform} {device.device_kind}",
        "number of devices": ", ".join(f"{count} along {axis}" for axis, count in shape.items()),
        "XLA_FLAGS": " ".join(xla_flags()) or "none",
        **{f"setting {name}": _setting(name) for name in SETTINGS},
        **source_digests(),
    }
    if device.platform == "cpu":
        described |= {"number of cores": str(xla_cores()), "processor": processor()}
    else:  # on a CPU it changes no bit of float32
        described[f"setting {MATMUL_PRECISION}"] = _setting(MATMUL_PRECISION)
    return described


def available_cores() -> int:
    """Returns the number of cores that this process may use, the size of the pools of NumPy, PyTorch and XLA."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def xla_cores() -> int:
    """Returns the number of cores that XLA uses: those that are available, unless `PJRT_NPROC` or `NPROC` says it."""
    said = os.environ.get("PJRT_NPROC", os.environ.get("NPROC", ""))
    return int(said) if re.fullmatch(r"[+-]?\d+", said) else available_cores()


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the model of the processor and its vector instructions, which Linux lists, elsewhere the model alone."""
    if not cpuinfo.exists():
        return f"{platform.machine()} {platform.processor()}".strip()
    lines = (line.partition(":")[::2] for line in cpuinfo.read_text().splitlines())
    values = {name.strip(): value.strip() for name, value in lines}
    listed = values.get("flags", values.get("Features", ""))
    instructions = sorted(flag for flag in listed.split() if VECTOR_INSTRUCTIONS.fullmatch(flag))
    model = [values[name] for name in ("model name", "cpu family", "model", "CPU part") if name in values]
    return f"{platform.machine()} {'/'.join(model)} with {' '.join(instructions) or 'no vector instructions'}"


def xla_flags() -> list[str]:
    """Returns the flags in `XLA_FLAGS`, or in the file that it names, in order, without those that change no number."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        text = Path(text).read_text()
    return [flag for flag in text.split() if not HARMLESS_FLAGS.match(flag)]


def _setting(name: str) -> str:
    config: Any = jax.config
    if hasattr(config, name):  # what a context manager can change
        return str(getattr(config, name))
    return str(config.values.get(name, "missing"))  # older versions of JAX have fewer settings


def source_digests() -> dict[str, str]:
    """Returns a digest of each source file of `jaxnet.nn`, and of those of `jaxnet.train` in `SOURCES`."""
    package = files("jaxnet")
    paths = [path for path in (package / "nn").iterdir() if path.name.endswith(".py")]
    paths += [package / "train" / f"{name}.py" for name in SOURCES]
    digests = {}
    for path in sorted(paths, key=str):
        text = path.read_text(encoding="utf-8")  # line ends are those of the system, and change no number
        folder = "nn" if path.name.removesuffix(".py") not in SOURCES else "train"
        digests[f"jaxnet/{folder}/{path.name}"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return digests
