"""Tests checkpoints: after kills, after damage, on full disks, and of other runs."""

import errno
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
import optax
import pytest
from conftest import a_dataset, random_params
from killed import STEPS

import jaxnet
from jaxnet.train import checkpoints
from jaxnet.train.checkpoints import CheckpointError, Checkpoints, identity

pytest.importorskip("orbax.checkpoint")
# after a failed read or write, tensorstore's threads outlive the event loop, and warn of it
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
HERE = Path(__file__).parent
KILLS = int(os.environ.get("JAXNET_KILLS", "2"))


@pytest.fixture
def run(rng):
    """Returns the positional arguments of a run of 60 steps, and the named ones that `initial_state` takes too."""
    data, net = a_dataset(rng), jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), 10, 60)
    return (net, random_params(net, dtype=np.float32), data, batches), {"key": jax.random.key(2)}


def folder_of(run, path, **changed):
    (net, _, data, batches), _ = run
    described = {"net": net, "data": data, "batches": batches, "dtype": np.float32, "settings": {"rate": 0.1}} | changed
    return Checkpoints(path / "checkpoints", lambda: identity(**described), seconds=0)


def save_all(run, path):
    arguments, settings = run
    saved, yielded = folder_of(run, path), []
    for progress in jaxnet.iter_fit(*arguments, eval_every=20, **settings):
        saved.offer(progress)
        yielded.append(progress)
    saved.finish()
    return yielded


def initial(run):
    (net, params, *_), settings = run
    return jaxnet.initial_state(net, params, **settings)


def no_warning(message):
    pytest.fail(f"warned: {message}")


def bits(progress):
    progress = progress._replace(state=progress.state._replace(key=jax.random.key_data(progress.state.key)))
    return [(str(a.dtype), a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(progress)]


@pytest.mark.slow
def test_the_last_three_checkpoints_are_kept_and_the_last_is_read_bit_for_bit(run, tmp_path):
    yielded = save_all(run, tmp_path)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [int(progress.state.step) for progress in yielded[-3:]]
    assert bits(folder_of(run, tmp_path).latest(initial(run), no_warning)) == bits(yielded[-1])


@pytest.mark.slow
def test_progress_before_the_first_step_can_be_resumed(run, tmp_path):
    arguments, settings = run
    whole = list(jaxnet.iter_fit(*arguments, eval_every=20, **settings))
    saved = folder_of(run, tmp_path)
    saved.save(whole[0])
    resume = folder_of(run, tmp_path).latest(initial(run), no_warning)
    assert bits(jaxnet.fit(*arguments, eval_every=20, **settings, resume=resume)) == bits(whole[-1])


@pytest.mark.slow
def test_without_checkpoints_there_is_nothing_to_resume(run, tmp_path):
    assert folder_of(run, tmp_path).latest(initial(run), no_warning) is None
    assert not (tmp_path / "checkpoints").exists()


def test_a_file_at_the_path_of_the_folder_is_refused(run, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="a file, expected a folder of checkpoints"):
        folder_of(run, tmp_path).latest(initial(run), no_warning)


def test_the_network_and_an_option_called_network_are_both_compared(run):
    (net, _, data, batches), _ = run
    described = identity(net, data, batches, np.float32, {"network": "deep"})
    assert described["network"] == repr(net.description)
    assert described["option network"] == "deep"


@pytest.mark.slow
def test_an_optax_optimizer_needs_an_identifying_text_in_the_settings(run, tmp_path):
    """A transformation does not reveal its hyperparameters, so runs with different ones would have one identity."""
    (net, params, data, batches), settings = run
    for optimizer in (optax.adam(1e-3), optax.adam):
        with pytest.raises(ValueError, match=r"settings\['optimizer'\]: .*, expected a text that identifies it"):
            identity(net, data, batches, np.float32, {"optimizer": optimizer})
    described = {"settings": {"optimizer": "adam(1e-3)"}}
    settings = settings | {"optimizer": optax.adam(1e-3)}
    whole = list(jaxnet.iter_fit(net, params, data, batches, eval_every=20, **settings))
    folder_of(run, tmp_path, **described).save(whole[1])
    initial_state = jaxnet.initial_state(net, params, **settings)
    resume = folder_of(run, tmp_path, **described).latest(initial_state, no_warning)
    resumed = jaxnet.fit(net, params, data, batches, eval_every=20, resume=resume, **settings)
    assert bits(resumed) == bits(whole[-1])
    with pytest.raises(CheckpointError, match=r"option optimizer was adam\(1e-3\), is adam\(1e-2\)"):
        folder_of(run, tmp_path, settings={"optimizer": "adam(1e-2)"}).latest(initial_state, no_warning)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink])
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_read(run, tmp_path, damage):
    yielded, warnings = save_all(run, tmp_path), []
    last = tmp_path / "checkpoints" / str(int(yielded[-1].state.step))
    damage(largest(last))
    restored = folder_of(run, tmp_path).latest(initial(run), warnings.append)
    assert bits(restored) == bits(yielded[-2])
    assert len(warnings) == 1
    assert f"{last} is damaged" in warnings[0]
    arguments, settings = run
    assert bits(jaxnet.fit(*arguments, eval_every=20, **settings, resume=restored)) == bits(yielded[-1])


@pytest.mark.slow
def test_the_digest_detects_changed_arrays_in_undamaged_files(run, tmp_path, monkeypatch):
    """Simulates memory that is corrupted between the computation of the digest and the write."""
    monkeypatch.setattr(checkpoints, "_digest", lambda *_: "0" * 64)
    save_all(run, tmp_path)
    monkeypatch.undo()
    warnings = []
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read.*start a new run"):
        folder_of(run, tmp_path).latest(initial(run), warnings.append)
    assert len(warnings) == 3
    assert "digest" in warnings[0]


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


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_resume_refuses_another_run_and_names_the_difference(run, tmp_path, name):
    change, message = OTHERS[name]
    save_all(run, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        folder_of(run, tmp_path, **change(run)).latest(initial(run), no_warning)


EXECUTION = {"number of cores": "2", "XLA_FLAGS": "none"}


def executed(run, path, **changed):
    saved = folder_of(run, path)
    saved.execution = lambda: EXECUTION | changed
    return saved


@pytest.fixture
def executed_run(run, tmp_path):
    """Returns a run with a checkpoint before its first step, which was executed with EXECUTION."""
    arguments, settings = run
    executed(run, tmp_path).save(next(iter(jaxnet.iter_fit(*arguments, eval_every=20, **settings))))
    return run


def test_resume_refuses_another_execution_unless_the_caller_accepts_it(executed_run, tmp_path):
    differing = executed(executed_run, tmp_path, **{"number of cores": "1", "XLA_FLAGS": "--xla_a=1", "new": "3"})
    message = "number of cores was 2, is 1; XLA_FLAGS was none, is --xla_a=1; new was not recorded, is 3"
    with pytest.raises(CheckpointError, match=rf"{message}; .*differs=print") as refused:
        differing.latest(initial(executed_run), no_warning)
    assert "\n" not in str(refused.value)
    told = []
    assert differing.latest(initial(executed_run), no_warning, told.append).state.step == 0
    assert told == [f"{tmp_path / 'checkpoints' / '0'}: {message}"]
    assert differing.changes == [f"after step 0: {message}"]
    other_run = folder_of(executed_run, tmp_path, settings={"rate": 0.2})
    with pytest.raises(CheckpointError, match=r"rate was 0.1, is 0.2"):  # which nobody can accept
        other_run.latest(initial(executed_run), no_warning, told.append)


def test_what_differed_at_each_resume_is_kept_in_the_checkpoints(executed_run, tmp_path):
    arguments, settings = executed_run
    first, second = ({"number of cores": cores} for cores in ("1", "4"))
    resumed = executed(executed_run, tmp_path, **first)
    progress = resumed.latest(initial(executed_run), no_warning, lambda _: None)
    *_, last = jaxnet.iter_fit(*arguments, eval_every=20, resume=progress, **settings)
    resumed.save(last)
    again = executed(executed_run, tmp_path, **second)
    again.latest(initial(executed_run), no_warning, lambda _: None)
    step = int(last.state.step)
    assert again.changes == [
        "after step 0: number of cores was 2, is 1",
        f"after step {step}: number of cores was 1, is 4",
    ]
    same = executed(executed_run, tmp_path, **first)
    same.latest(initial(executed_run), no_warning)
    assert same.changes == again.changes[:1]


ERRORS = {"permission": (errno.EACCES, "Permission denied"), "disk": (errno.EIO, "Input/output error")}


@pytest.mark.parametrize("name", ERRORS)
def test_a_file_that_cannot_be_read_at_present_ends_the_resume_and_nothing_is_removed(
    executed_run, tmp_path, monkeypatch, name
):
    number, reason = ERRORS[name]
    (unreadable,) = (tmp_path / "checkpoints" / "0").rglob("record/metadata")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    def refuse(path, *arguments):
        if Path(path) == unreadable:
            raise OSError(number, os.strerror(number), str(path))
        return open(path, *arguments)

    monkeypatch.setattr(checkpoints, "open", refuse, raising=False)
    with pytest.raises(CheckpointError, match=rf"^{unreadable}: cannot be read \({reason}\); nothing was removed"):
        executed(executed_run, tmp_path).latest(initial(executed_run), no_warning)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_an_error_of_the_storage_library_with_the_number_of_a_device_is_no_damage(executed_run, tmp_path, monkeypatch):
    def fail(self, step):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Input/output error\); nothing was removed"):
        executed(executed_run, tmp_path).latest(initial(executed_run), no_warning)


@pytest.mark.slow
def test_resume_refuses_another_optimizer(run, tmp_path):
    (net, params, *_), settings = run
    save_all(run, tmp_path)
    adam = jaxnet.initial_state(net, params, optimizer="adam", **settings)
    with pytest.raises(CheckpointError, match=r"\.state\.opt_state.*from another optimizer or network"):
        folder_of(run, tmp_path).latest(adam, no_warning)


@contextmanager
def full_disk():
    """Limits files to 100 bytes, so that writing fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_training_continues(run, tmp_path):
    arguments, settings = run
    saved, failures = folder_of(run, tmp_path), []
    with full_disk():
        for progress in jaxnet.iter_fit(*arguments, eval_every=20, **settings):
            try:
                saved.save(progress)
            except CheckpointError as error:
                failures.append(str(error))
    assert len(failures) >= 4
    assert "no checkpoint could be saved" in failures[0]
    assert "make room" in failures[0]
    assert progress.state.step == 60
    saved.save(progress)  # the disk is no longer full
    assert bits(folder_of(run, tmp_path).latest(initial(run), no_warning)) == bits(progress)


@pytest.mark.slow
def test_a_disk_that_fills_during_a_write_is_reported(run, tmp_path, monkeypatch):
    arguments, settings = run
    saved, (*earlier, last) = folder_of(run, tmp_path), jaxnet.iter_fit(*arguments, eval_every=20, **settings)
    monkeypatch.setattr(Checkpoints, "_reserve", lambda self, size: self.folder.mkdir(exist_ok=True))
    with full_disk():
        for progress in earlier:
            with pytest.raises(CheckpointError, match="no checkpoint could be saved"):
                saved.save(progress)
    saved.save(last)
    assert bits(folder_of(run, tmp_path).latest(initial(run), no_warning)) == bits(last)
    gc.collect()  # so that pytest reports files that orbax has not closed


def test_a_folder_that_cannot_be_written_is_reported(run, tmp_path):
    arguments, settings = run
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match="no checkpoint could be saved"):
        folder_of(run, tmp_path).save(next(iter(jaxnet.iter_fit(*arguments, eval_every=20, **settings))))


def killed_run(folder, pause):
    folder.mkdir(exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    }
    command = [sys.executable, HERE / "killed.py", folder, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    """Kills the run JAXNET_KILLS times, 2 by default; a checkpoint is being written nearly all the time."""
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
    assert 0 < max(steps) < STEPS  # the last kill came before the end
    assert int(re.search(r"step (\d+)", output)[1]) > 0  # the last run resumed
    with np.load(tmp_path / "whole" / "end.npz") as a, np.load(tmp_path / "killed" / "end.npz") as b:
        assert a.files == b.files
        assert all(a[name].tobytes() == b[name].tobytes() for name in a.files)


@pytest.mark.slow
def test_a_float64_run_with_integer_counts_is_read_bit_for_bit(run, tmp_path, x64):
    """Adam counts its steps."""
    (net, _, data, batches), settings = run
    params = random_params(net)
    arguments, settings = (net, params, data, batches), settings | {"optimizer": "adam"}
    saved = folder_of((arguments, settings), tmp_path, dtype=np.float64)
    progress = jaxnet.fit(*arguments, eval_every=20, **settings)
    saved.save(progress)
    restored = folder_of((arguments, settings), tmp_path, dtype=np.float64).latest(
        jaxnet.initial_state(net, params, **settings), no_warning
    )
    assert bits(restored) == bits(progress)
    assert jnp.result_type(*jax.tree.leaves(restored.state.params)) == np.float64


def test_a_missing_orbax_is_reported_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    checkpoints = Checkpoints(tmp_path / "checkpoints", dict)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"need orbax-checkpoint .*: pip install"):
        checkpoints.latest(None, print)
