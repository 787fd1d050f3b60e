"""One run, over simulated devices and over processes that talk: the same numbers, each with its share of the rows."""

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
from conftest import a_dataset, random_params
from meshed import ROWS, STEPS

import jaxnet
from jaxnet.train import sharding

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "meshed.py"
# Programs that are compiled fast, since they run for moments
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}


def start(what, folder, *arguments, local=1, processes=1):
    """As many workers as `processes`, with `local` simulated devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, WORKER, what, folder, *map(str, (local, port, processes, process, *arguments))],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(processes)
    ]  # fmt: skip


def run(what, folder, *arguments, **how):
    workers = start(what, folder, *arguments, **how)
    try:
        errors = [worker.communicate(timeout=400)[1] for worker in workers]
        assert all(worker.returncode == 0 for worker in workers), "\n".join(errors)
    finally:
        end(workers)


def end(workers):
    for worker in workers:
        worker.kill()
        worker.communicate()


def farthest(one, other):
    with np.load(one) as one, np.load(other) as other:
        assert set(one) == set(other)
        assert all(one[name].shape == other[name].shape for name in one)
        return max(np.abs(one[name] - other[name]).max() for name in one)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run of one device, and of meshes of 1, 2 and 8 simulated ones."""
    folder = tmp_path_factory.mktemp("simulated")
    run("simulated", folder, 1, 2, 8, local=8)
    return folder


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_mesh_of_simulated_devices_walks_the_trajectory_of_one(folder, count):
    """Losses, accuracies, parameters, running statistics, momentum, of 20 steps with masks, in float64."""
    assert farthest(folder / "alone.npz", folder / f"{count}.npz") < 1e-12


def test_each_device_computes_with_its_share_and_what_is_summed_are_the_gradients():
    """The compiled step says so: without `split` every device would go through the whole batch, and sum nothing."""
    script = WORKER.parent.parent / "scripts" / "scaling.py"
    arguments = ["--devices", "1", "2", "--hidden", "8", "--batch-size", "16", "--steps", "2"]
    told = subprocess.run([sys.executable, script, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    gradient = 4 * (785 * 8 + 9 * 10)
    lines = [line.split()[:4] for line in told.stdout.splitlines()[-2:]]
    assert lines[0] == ["1", "0", "0", "0"]
    assert lines[1] == ["2", f"{gradient + 4:,}", f"{16 * 784 + 16 * 4:,}", f"{2 * 16 * 4}"]


def test_two_processes_then_four_walk_it_too_each_with_its_rows_and_one_that_writes(folder, tmp_path):
    for processes, steps, came_from in [(2, STEPS // 2, None), (4, STEPS, STEPS // 2)]:
        run("one_of", tmp_path, steps, local=4 // processes, processes=processes)
        told = [json.loads((tmp_path / f"process{i}.json").read_text()) for i in range(processes)]
        assert [facts["from"] for facts in told] == [came_from] * processes
        assert [facts["wrote"] > 0 for facts in told] == [True] + [False] * (processes - 1)
        assert all(facts["at"] == told[0]["at"] for facts in told)  # JAX wants the same programs everywhere
        shards = [tuple(shard) for facts in told for shard in facts["shards"]]
        assert shards == [(16 * i, 16) for i in range(4)]  # 61 rows, padded to 64: none is held twice
        assert all(facts["any"] == [True, False] for facts in told)
        if processes == 2:
            (step, _, before), other = (facts["diverged"] for facts in told)
            assert other == told[0]["diverged"]
            assert before == step - 1
    for process in range(4):
        assert farthest(folder / "alone.npz", tmp_path / f"process{process}.npz") < 1e-12
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert len(kept) == 3
    assert kept[-1] == STEPS


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_a_line(tmp_path, victim):
    workers = start("endless", tmp_path, processes=2)
    try:
        deadline = time.monotonic() + 240
        while not all((tmp_path / f"at{i}").exists() and (tmp_path / f"at{i}").read_text() >= "1" for i in (0, 1)):
            assert time.monotonic() < deadline
            assert all(worker.poll() is None for worker in workers), workers[1].stderr.read()
            time.sleep(0.1)
        workers[victim].send_signal(signal.SIGKILL)
        _, errors = workers[1 - victim].communicate(timeout=120)
        assert workers[1 - victim].returncode != 0
        ours = "a step of all processes failed, mostly because another one is gone" in errors
        assert ours or (victim == 0 and "another task died" in errors)  # JAX sees at once that process 0 is gone
    finally:
        end(workers)


def test_more_devices_than_there_are_are_refused_with_what_to_do():
    count = len(jax.devices()) + 1
    with pytest.raises(ValueError, match=rf"devices: {count}, expected 1 to .*jax_num_cpu_devices\", {count}\)"):
        sharding.mesh(count)
    with pytest.raises(ValueError, match="devices: 0, expected 1 to"):
        sharding.mesh(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((None, 2, 0), "coordinator: None"), (("here", 2, 0), "coordinator: here"), (("here:1", 2, 2), "process: 2")],
)
def test_processes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sharding.join(*arguments)


def test_one_process_joins_nobody():
    sharding.join()
    assert not jax.distributed.is_initialized()
    assert sharding.any_process(True)
    assert not sharding.any_process(False)


def test_a_batch_that_the_devices_do_not_divide_is_refused_naming_both():
    four = sharding.ManyDevices(jax.sharding.AbstractMesh((4,), ("batch",)))
    four.check_batch_size(8)
    with pytest.raises(ValueError, match="batches: 10 rows a step, which 4 devices cannot share evenly"):
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
def test_over_a_mesh_the_data_are_looked_at_share_by_share(rng, name, change, message):
    data, net = a_dataset(rng, ROWS), jaxnet.two_layer_net(12, 8, 5)
    data = data._replace(**{name: change(getattr(data, name))})
    with pytest.raises(ValueError, match=message):
        jaxnet.fit(net, random_params(net, dtype=np.float32), data, np.zeros((2, 3), int), mesh=sharding.mesh(1))
