"""Nothing is lost: killed, cut short, changed, moved to another network, out of room."""

import gc
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import a_dataset, random_params
from killed import STEPS

import jaxnet
from jaxnet.train import checkpoints
from jaxnet.train.checkpoints import CheckpointError, Checkpoints, identity

pytest.importorskip("orbax.checkpoint")
# tensorstore's threads outlive the event loop of a read or write that failed, and complain of it to nobody
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
HERE = Path(__file__).parent
KILLS = int(os.environ.get("JAXNET_KILLS", "2"))


@pytest.fixture
def run(rng):
    """A run of 60 steps, evaluated every 20: the arguments of `stages`, and the settings."""
    data, net = a_dataset(rng), jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), 10, 60)
    return (net, random_params(net, dtype=np.float32), data, batches), {"eval_every": 20, "key": jax.random.key(2)}


def folder_of(run, path, **changed):
    (net, _, data, batches), _ = run
    made = {"net": net, "data": data, "batches": batches, "dtype": np.float32, "settings": {"rate": 0.1}} | changed
    return Checkpoints(path / "checkpoints", lambda: identity(**made), seconds=0)


def saved_at_every_stage(run, path):
    arguments, settings = run
    saved, stages = folder_of(run, path), []
    for stage in jaxnet.stages(*arguments, **settings):
        saved.offer(stage)
        stages.append(stage)
    saved.finish()
    return stages


def beginning(run):
    (net, params, *_), settings = run
    return jaxnet.initial_state(net, params, **settings)


def nobody(message):
    pytest.fail(f"told {message}")


def bits(stage):
    stage = stage._replace(state=stage.state._replace(key=jax.random.key_data(stage.state.key)))
    return [(str(a.dtype), a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(stage)]


def test_the_last_three_stay_and_the_last_comes_back_to_the_bit(run, tmp_path):
    stages = saved_at_every_stage(run, tmp_path)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [int(stage.state.step) for stage in stages[-3:]]
    assert bits(folder_of(run, tmp_path).latest(beginning(run), nobody)) == bits(stages[-1])


def test_a_stage_before_the_first_step_can_be_gone_on_from(run, tmp_path):
    arguments, settings = run
    whole = list(jaxnet.stages(*arguments, **settings))
    saved = folder_of(run, tmp_path)
    saved.save(whole[0])
    resume = folder_of(run, tmp_path).latest(beginning(run), nobody)
    assert bits(jaxnet.fit(*arguments, **settings, resume=resume)) == bits(whole[-1])


def test_where_nothing_is_saved_there_is_nothing_to_go_on_from(run, tmp_path):
    assert folder_of(run, tmp_path).latest(beginning(run), nobody) is None
    assert not (tmp_path / "checkpoints").exists()


def test_a_file_where_the_checkpoints_should_be_is_said_to_be_one(run, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="a file, expected a folder of checkpoints"):
        folder_of(run, tmp_path).latest(beginning(run), nobody)


def test_the_network_and_an_option_of_that_name_are_both_compared(run):
    (net, _, data, batches), _ = run
    made_of = identity(net, data, batches, np.float32, {"network": "deep"})
    assert made_of["network"] == repr(net.description)
    assert made_of["option network"] == "deep"


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def changed(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("damage", [cut_short, changed, Path.unlink])
def test_a_damaged_one_is_told_of_and_the_one_before_taken(run, tmp_path, damage):
    stages, told = saved_at_every_stage(run, tmp_path), []
    last = tmp_path / "checkpoints" / str(int(stages[-1].state.step))
    damage(largest(last))
    found = folder_of(run, tmp_path).latest(beginning(run), told.append)
    assert bits(found) == bits(stages[-2])
    assert len(told) == 1
    assert f"{last} is damaged" in told[0]
    arguments, settings = run
    assert bits(jaxnet.fit(*arguments, **settings, resume=found)) == bits(stages[-1])


def test_a_change_that_the_files_themselves_would_not_show_is_seen_by_the_digest(run, tmp_path, monkeypatch):
    """As if memory had gone bad between the digest and the disk."""
    monkeypatch.setattr(checkpoints, "_digest", lambda leaves: "0" * 64)
    saved_at_every_stage(run, tmp_path)
    monkeypatch.undo()
    told = []
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read.*begin a new run"):
        folder_of(run, tmp_path).latest(beginning(run), told.append)
    assert len(told) == 3
    assert "digest" in told[0]


def other_data(data):
    x = data.x_train.copy()
    x[3, 4] += 1
    return data._replace(x_train=x)


OTHERS = {
    "network": (lambda run: {"net": jaxnet.two_layer_net(12, 8, 5)}, "network was "),
    "dtype": (lambda run: {"dtype": np.float64}, "dtype was float32, is float64"),
    "data": (lambda run: {"data": other_data(run[0][2])}, r"x_train was float32\[60, 12\], CRC-32 "),
    "batches": (lambda run: {"batches": run[0][3][::-1]}, "batches was "),
    "setting": (lambda run: {"settings": {"rate": 0.2}}, "rate was 0.1, is 0.2"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_one_of_another_run_is_refused_by_what_is_other(run, tmp_path, name):
    change, message = OTHERS[name]
    saved_at_every_stage(run, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        folder_of(run, tmp_path, **change(run)).latest(beginning(run), nobody)


def test_one_of_another_version_is_refused(run, tmp_path, monkeypatch):
    saved_at_every_stage(run, tmp_path)
    monkeypatch.setattr(jaxnet, "__version__", "99")
    with pytest.raises(CheckpointError, match=r"version of jaxnet was .*, is 99; go on with what the run was begun"):
        folder_of(run, tmp_path).latest(beginning(run), nobody)


def test_one_of_another_optimizer_is_refused_by_its_leaf(run, tmp_path):
    (net, params, *_), settings = run
    saved_at_every_stage(run, tmp_path)
    adam = jaxnet.initial_state(net, params, optimizer="adam", **settings)
    with pytest.raises(CheckpointError, match=r"\.state\.opt_state.*of another optimizer or network"):
        folder_of(run, tmp_path).latest(adam, nobody)


@contextmanager
def no_room():
    """No file may grow beyond 100 bytes, which is what a full disk is to whoever writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_without_room_is_told_and_training_goes_on(run, tmp_path):
    arguments, settings = run
    saved, failures = folder_of(run, tmp_path), []
    with no_room():
        for stage in jaxnet.stages(*arguments, **settings):
            try:
                saved.save(stage)
            except CheckpointError as error:
                failures.append(str(error))
    assert len(failures) >= 4
    assert "no checkpoint could be saved" in failures[0]
    assert "make room" in failures[0]
    assert stage.state.step == 60
    saved.save(stage)  # there is room again
    assert bits(folder_of(run, tmp_path).latest(beginning(run), nobody)) == bits(stage)


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_told_too(run, tmp_path, monkeypatch):
    arguments, settings = run
    saved, (*earlier, last) = folder_of(run, tmp_path), jaxnet.stages(*arguments, **settings)
    monkeypatch.setattr(Checkpoints, "_make_room", lambda self, size: self.folder.mkdir(exist_ok=True))
    with no_room():
        for stage in earlier:
            with pytest.raises(CheckpointError, match="no checkpoint could be saved"):
                saved.save(stage)
    saved.save(last)
    assert bits(folder_of(run, tmp_path).latest(beginning(run), nobody)) == bits(last)
    gc.collect()  # what orbax leaves behind is complained of here


def test_a_folder_that_cannot_be_written_is_told(run, tmp_path):
    arguments, settings = run
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match="no checkpoint could be saved"):
        folder_of(run, tmp_path).save(next(iter(jaxnet.stages(*arguments, **settings))))


def killed_run(folder, pause):
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, HERE / "killed.py", folder, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bits(tmp_path):
    """JAXNET_KILLS of them, 2 unless it says otherwise; a checkpoint is being written nearly all the time."""
    with killed_run(tmp_path / "whole", 0) as whole:
        assert "step 600" in whole.stdout.read()
    rng, reached = np.random.default_rng(0), []
    for _ in range(KILLS):
        with killed_run(tmp_path / "killed", 0.02) as process:
            for _ in range(rng.integers(1, 4)):
                reached.append(process.stdout.readline().strip())
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            reached += process.stdout.read().split("\n")
        assert process.returncode == -signal.SIGKILL, reached
    with killed_run(tmp_path / "killed", 0) as last:
        output = last.stdout.read()
    assert last.returncode == 0, output
    steps = [int(step) for step in re.findall(r"step (\d+)", " ".join(reached))]
    assert 0 < max(steps) < STEPS  # it had come some way, and not to the end, before it was killed for the last time
    assert int(re.search(r"step (\d+)", output)[1]) > 0  # and did not begin again
    with np.load(tmp_path / "whole" / "end.npz") as one, np.load(tmp_path / "killed" / "end.npz") as other:
        assert one.files == other.files
        assert all(one[name].tobytes() == other[name].tobytes() for name in one.files)


def test_keys_of_every_kind_of_number_come_back(run, tmp_path, x64):
    """In double precision, with Adam's counts."""
    (net, _, data, batches), settings = run
    params = random_params(net)
    arguments, settings = (net, params, data, batches), settings | {"optimizer": "adam"}
    saved = folder_of((arguments, settings), tmp_path, dtype=np.float64)
    stage = jaxnet.fit(*arguments, **settings)
    saved.save(stage)
    found = folder_of((arguments, settings), tmp_path, dtype=np.float64).latest(
        jaxnet.initial_state(net, params, **settings), nobody
    )
    assert bits(found) == bits(stage)
    assert jnp.result_type(*jax.tree.leaves(found.state.params)) == np.float64
