"""Tests the description of what decides the bits of a run beside its arguments."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxnet
from jaxnet.train import execution as module
from jaxnet.train.execution import execution, processor, source_digests, xla_flags

NO_STEP = {"divergence", "history", "rendezvous"}  # modules that `fit` imports and that no step depends on


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert execution()["number of cores"] == "1"
    finally:
        os.sched_setaffinity(0, allowed)
    assert execution()["number of cores"] == str(len(allowed))


def test_the_cores_are_those_that_xla_was_told_to_use(monkeypatch):
    monkeypatch.setenv("NPROC", "7")
    assert execution()["number of cores"] == "7"
    monkeypatch.setenv("PJRT_NPROC", "5")
    assert execution()["number of cores"] == "5"
    monkeypatch.setenv("PJRT_NPROC", "all")
    assert execution()["number of cores"] == str(module.available_cores())


@pytest.mark.skipif(tuple(map(int, jax.__version__.split(".")[:2])) < (0, 10), reason="older versions have fewer")
@pytest.mark.parametrize("name", module.SETTINGS)
def test_every_setting_is_one_that_jax_has(name):
    assert execution()[f"setting {name}"] != "missing"


def test_a_setting_without_a_context_is_described():
    config, name = jax.config, "jax_disable_most_optimizations"
    config.update(name, True)
    try:
        assert execution()[f"setting {name}"] == "True"
    finally:
        config.update(name, False)


def test_a_setting_of_jax_is_described(x64):
    assert execution()["setting jax_enable_x64"] == "True"


def test_another_version_is_described(monkeypatch):
    monkeypatch.setattr(jaxnet, "__version__", "99")
    assert execution()["version of jaxnet"] == "99"


def test_a_mesh_is_described():
    assert execution(jaxnet.train.sharding.mesh(1)) == execution()


def test_flags_are_read_from_the_environment_or_a_file_without_those_that_change_no_number(monkeypatch, tmp_path):
    flags = "--xla_dump_to=x --xla_cpu_max_isa=AVX  --xla_force_host_platform_device_count=2 --xla_b"
    for value in (flags, str(tmp_path / "flags")):
        (tmp_path / "flags").write_text(flags)
        monkeypatch.setenv("XLA_FLAGS", value)
        assert xla_flags() == ["--xla_cpu_max_isa=AVX", "--xla_b"]
    monkeypatch.delenv("XLA_FLAGS")
    assert execution()["XLA_FLAGS"] == "none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\nflags\t: avx2 fpu sse4_1 fma\n",
            "EPYC/25/1 with avx2 fma sse4_1",
        ),
        ("Features\t: fp asimd crc32 sve2\nCPU part\t: 0xd40\n", "0xd40 with asimd sve2"),
    ],
)
def test_the_processor_is_described_by_its_model_and_vector_instructions(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo").endswith(expected)


def test_the_processor_is_described_where_the_system_has_no_cpuinfo(tmp_path):
    assert processor(tmp_path / "none")


def test_a_changed_file_of_a_step_changes_its_digest_alone(monkeypatch, tmp_path):
    for name in (*source_digests(), "jaxnet/train/run_lock.py"):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((Path(jaxnet.__file__).parents[1] / name).read_bytes())
    before = source_digests()
    monkeypatch.setattr(module, "files", lambda package: tmp_path / package)
    assert source_digests() == before
    for name in ("jaxnet/nn/losses.py", "jaxnet/train/run_lock.py"):
        with (tmp_path / name).open("a") as file:
            file.write("EPSILON = 1e-7\n")
    assert {name for name, digest in source_digests().items() if digest != before[name]} == {"jaxnet/nn/losses.py"}


def test_all_modules_that_training_imports_are_digested_or_known_to_be_in_no_step():
    program = "import sys, jaxnet.train.fit; print(*(name for name in sys.modules if name.startswith('jaxnet.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    nn = {name for name in loaded if name.startswith("jaxnet.nn.")}
    train = {name.removeprefix("jaxnet.train.") for name in loaded if name.startswith("jaxnet.train.")}
    assert train - NO_STEP == set(module.SOURCES)
    assert {f"{name.replace('.', '/')}.py" for name in nn} <= source_digests().keys()
