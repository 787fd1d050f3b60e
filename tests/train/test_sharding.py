"""Tests that a run whose rows are divided between simulated devices, or processes, has the numbers of one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import a_dataset, exhaustive, random_params
from meshed import MESHES, NETWORKS, ROWS, STEPS

import jaxnet
from jaxnet.train import sharding

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "meshed.py"
TESTS = WORKER.parents[1]  # contains the conftest.py that workers import
ENVIRONMENT = os.environ | {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # the programs run briefly, so fast compilation matters more
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
}


def start(task, folder, *arguments, local=1, processes=1):
    """Starts this many worker processes, each with `local` simulated devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, WORKER, task, folder, *map(str, (local, port, processes, process, *arguments))],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(processes)
    ]  # fmt: skip


def run(task, folder, *arguments, **options):
    workers = start(task, folder, *arguments, **options)
    try:
        errors = [worker.communicate(timeout=400)[1] for worker in workers]
        assert all(worker.returncode == 0 for worker in workers), "\n".join(errors)
    finally:
        end(workers)


def end(workers):
    for worker in workers:
        worker.kill()
        worker.communicate()


def largest_difference(path_a, path_b):
    with np.load(path_a) as a, np.load(path_b) as b:
        assert set(a) == set(b)
        assert all(a[name].shape == b[name].shape for name in a)
        return max(np.abs(np.subtract(a[name], b[name], dtype=float)).max() for name in a)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns the folder with the results of one device, and of meshes of 1, 2 and 8 simulated ones."""
    folder = tmp_path_factory.mktemp("simulated")
    run("simulated", folder, 1, 2, 8, local=8)
    return folder


@pytest.mark.parametrize("count", [exhaustive(1), 2, exhaustive(8)])
def test_a_mesh_of_simulated_devices_has_the_trajectory_of_one_device(folder, count):
    """Compares losses, accuracies, parameters, running statistics and momentum of 20 steps with Dropout, in float64."""
    assert largest_difference(folder / "alone.npz", folder / f"{count}.npz") < 1e-12


@pytest.mark.parametrize("name", [name if name == "transformer" else exhaustive(name) for name in NETWORKS])
def test_a_network_has_the_trajectory_of_one_device_over_devices_that_divide_rows_and_weights(tmp_path, name):
    run("network_over_meshes", tmp_path, list(NETWORKS).index(name), len(MESHES), local=8)
    for count, model in MESHES:
        assert largest_difference(tmp_path / "alone.npz", tmp_path / f"{count}-{model}.npz") < 1e-12, (count, model)
    assert largest_difference(tmp_path / "alone.npz", tmp_path / "read.npz") < 1e-12


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_trajectory_of_one_device_over_two_processes(tmp_path, name):
    number = list(NETWORKS).index(name)
    run("network_over_meshes", tmp_path, number, 0)
    run("network_over_processes", tmp_path, number, local=2, processes=2)
    for model, process in [(1, 0), (1, 1), (2, 0), (2, 1)]:
        together = tmp_path / f"{model}-process{process}.npz"
        assert largest_difference(tmp_path / "alone.npz", together) < 1e-12, (model, process)
    for process in (0, 1):
        assert largest_difference(tmp_path / "alone.npz", tmp_path / f"read-process{process}.npz") < 1e-12


def test_a_sweep_over_devices_has_the_results_of_one_device(tmp_path):
    run("sweep_over_meshes", tmp_path, local=8)
    for devices in (4, 8):
        assert largest_difference(tmp_path / "alone.npz", tmp_path / f"{devices}.npz") < 1e-12, devices


@pytest.mark.exhaustive
def test_a_sweep_over_two_processes_has_the_results_of_one_device(tmp_path):
    run("sweep_over_meshes", tmp_path, local=8)
    run("sweep_over_processes", tmp_path, local=2, processes=2)
    for process in (0, 1):
        assert largest_difference(tmp_path / "alone.npz", tmp_path / f"process{process}.npz") < 1e-12, process


def test_each_device_computes_with_its_shard_and_gradients_are_summed():
    """Reads the compiled step. Without `constrain`, every device would compute with the whole batch."""
    script = TESTS.parent / "scripts" / "scaling.py"
    arguments = ["784-8-10@16", "--devices", "1", "2", "--steps", "2"]
    result = subprocess.run([sys.executable, script, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    gradient = 4 * (785 * 8 + 9 * 10)
    lines = [line.replace("/", " ").split() for line in result.stdout.splitlines()[-2:]]
    assert lines[0][:9] == ["1", *["0"] * 8]
    bytes_of = {"gradients": gradient + 4, "activations": 0, "rows": 16 * 784 + 16 * 4, "row numbers": 2 * 16 * 4}
    assert lines[1][:9] == ["2", *[f"{size:,}" for size in bytes_of.values() for _ in ("measured", "predicted")]]


@pytest.mark.exhaustive
def test_two_and_then_four_processes_divide_the_rows_and_have_the_trajectory_of_one_device(folder, tmp_path):
    for processes, steps, resumed_from in [(2, STEPS // 2, None), (4, STEPS, STEPS // 2)]:
        run("one_of", tmp_path, steps, local=4 // processes, processes=processes)
        results = [json.loads((tmp_path / f"process{i}.json").read_text()) for i in range(processes)]
        assert [facts["from"] for facts in results] == [resumed_from] * processes
        assert [facts["written"] > 0 for facts in results] == [True] + [False] * (processes - 1)
        assert all(
            facts["steps"] == results[0]["steps"] for facts in results
        )  # JAX needs the same programs in every process
        shards = [tuple(shard) for facts in results for shard in facts["shards"]]
        assert shards == [(16 * i, 16) for i in range(4)]  # 61 rows, padded to 64: no row is on two devices
        assert all(facts["any"] == [True, False] for facts in results)
        if processes == 2:
            (step, _, before), other = (facts["diverged"] for facts in results)
            assert other == results[0]["diverged"]
            assert before == step - 1
    for process in range(4):
        assert largest_difference(folder / "alone.npz", tmp_path / f"process{process}.npz") < 1e-12
    saved_steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert len(saved_steps) == 3
    assert saved_steps[-1] == STEPS


@pytest.mark.parametrize("victim", [0, exhaustive(1)])
def test_a_killed_process_ends_the_others_with_a_one_line_message(tmp_path, victim):
    workers = start("endless", tmp_path, processes=2)
    try:
        deadline = time.monotonic() + 240
        while not all((tmp_path / f"at{i}").exists() and (tmp_path / f"at{i}").read_text() >= "1" for i in (0, 1)):
            assert time.monotonic() < deadline
            assert all(worker.poll() is None for worker in workers), workers[1].stderr.read()
            time.sleep(0.1)
        workers[victim].send_signal(signal.SIGKILL)
        _, errors = workers[1 - victim].communicate(timeout=120)
        assert workers[1 - victim].returncode in (sharding.PROCESS_DIED, -signal.SIGABRT)  # the second one is JAX's
        has_our_line = "a joint computation failed, probably because another process has died" in errors
        assert has_our_line or (
            victim == 0 and "another task died" in errors
        )  # JAX notices the death of process 0 at once
    finally:
        end(workers)


def test_more_devices_than_available_are_refused_with_the_option_to_change():
    count = len(jax.devices()) + 1
    with pytest.raises(ValueError, match=rf"devices: {count}, expected 1 to .*jax_num_cpu_devices\", {count}\)"):
        sharding.mesh(count)
    with pytest.raises(ValueError, match="devices: 0, expected 1 to"):
        sharding.mesh(0)
    with pytest.raises(ValueError, match="model_devices: 2, expected a divisor of 1, the number of devices"):
        sharding.mesh(1, model_devices=2)


@pytest.mark.parametrize("wrong", [2, "batch", jax.make_mesh((1,), ("x",))])
def test_what_is_no_mesh_is_refused(rng, wrong):
    data, net = a_dataset(rng, ROWS), jaxnet.two_layer_net(12, 8, 5)
    with pytest.raises(ValueError, match=r"mesh: .*, expected one as from jaxnet\.train\.sharding\.mesh\(devices\)"):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int), mesh=wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((None, 2, 0), "coordinator: None"), (("here", 2, 0), "coordinator: here"), (("here:1", 2, 2), "process: 2")],
)
def test_invalid_coordinators_and_process_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sharding.join(*arguments)


def test_a_single_process_does_not_start_jax_distributed():
    sharding.join()
    assert not jax.distributed.is_initialized()
    assert sharding.any_process(True)
    assert not sharding.any_process(False)


def test_a_batch_size_that_is_no_multiple_of_the_devices_is_refused():
    four = sharding.ManyDevices(jax.sharding.AbstractMesh((4,), ("batch",)))
    four.check_batch_size(8)
    with pytest.raises(ValueError, match="batches: 10 rows a step, expected a multiple of 4, the number of devices"):
        four.check_batch_size(10)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x_train", lambda x: np.where(x == x[3, 4], np.nan, x), r"data\.x_train\[0:61\]\[3, 4\]: nan"),
        ("t_train", lambda t: t[:-1], r"data\.t_train\[0:61\]: int32 of shape \(60,\), .* shape \(61,\)"),
        ("t_test", lambda t: np.append(t, 0), r"data\.t_test\[0:30\]: int.* of shape \(31,\)"),
        ("x_test", lambda x: x[:0], r"data\.x_test\[0:0\]: .* N >= 1"),
    ],
)
def test_over_a_mesh_the_data_is_checked_shard_by_shard(rng, name, change, message):
    data, net = a_dataset(rng, ROWS), jaxnet.two_layer_net(12, 8, 5)
    data = data._replace(**{name: change(getattr(data, name))})
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int), mesh=sharding.mesh(1))


def test_texts_of_other_processes_are_kept_where_they_differ(monkeypatch):
    """Stands for two processes, whose arrays `process_allgather` returns side by side."""
    own, other = {"processor": "x86 with avx2", "cores": "2"}, {"processor": "x86 with avx512", "cores": "2"}
    size = len(json.dumps(other))

    def gathered(array):
        theirs = np.array([size]) if array.size == 1 else np.frombuffer(json.dumps(other).encode(), np.uint8)
        return np.stack([array, theirs])

    monkeypatch.setattr(sharding.multihost_utils, "process_allgather", gathered)
    assert sharding.of_all_processes(own) == own | {"processor of process 1": "x86 with avx512"}
