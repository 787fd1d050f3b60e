"""Tests that TensorBoard's own reader finds in an event file what `history.csv` and `summary.json` contain."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxnet.cli import main, train
from jaxnet.train import run_folder

SMALL = "--hidden 8 --steps 60 --eval-every 20 --validation 0.1 --optimizer momentum --checkpoint-seconds 0"
INSTALL = 'needs tensorboardX: pip install "jaxnet-crosscheck[tensorboard]"'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Returns a function that runs `jaxnet train` in a new folder; it returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def jaxnet_train(arguments):
        monkeypatch.setattr(sys, "argv", ["jaxnet", "train", *arguments.split()])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        out, err = capsys.readouterr()
        code = stopped.value.code
        return (1, out, f"{err}{code}\n") if isinstance(code, str) else (code or 0, out, err)

    return jaxnet_train


@pytest.fixture
def reader():
    """Returns a function that reads the event files of a folder."""
    pytest.importorskip("tensorboardX", reason="tensorboardX, which writes event files, is not installed")
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard, which reads event files independently, is not installed",
    )

    def read(folder):
        return accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()

    return read


def points(events, tag):
    return np.array([(event.step, event.value) for event in events.Scalars(tag)])


def assert_equals_history(events, folder):
    history = run_folder.read_history(folder / run_folder.HISTORY)
    summary = json.loads((folder / "summary.json").read_text())
    steps = np.arange(1, len(history.loss) + 1)
    expected = {
        "loss": (steps, history.loss),
        "accuracy/train": (history.eval_step, history.train_accuracy),
        "accuracy/validation": (history.eval_step, history.test_accuracy),
        "accuracy/test": ([summary["steps"]], [summary["test_accuracy"]]),
    }
    assert set(events.Tags()["scalars"]) == set(expected)
    for tag, columns in expected.items():
        np.testing.assert_allclose(points(events, tag), np.column_stack(columns), rtol=1e-6, err_msg=tag)


@pytest.mark.slow
def test_the_event_file_has_the_history_the_options_and_the_success(run, reader):
    from tensorboard.plugins.hparams import api_pb2, metadata

    status, out, err = run(f"{SMALL} --output runs/a --tensorboard")
    assert status == 0, err
    assert "events.out.tfevents" in out
    events = reader("runs/a")
    assert_equals_history(events, Path("runs/a"))

    content = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
    hparams = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    options = json.loads(Path("runs/a/summary.json").read_text())["options"]
    assert hparams == {name: value for name, value in options.items() if value is not None} | {"hidden": "8"}
    metrics = metadata.parse_experiment_plugin_data(content["_hparams_/experiment"]).metric_infos
    assert {metric.name.tag for metric in metrics} == set(events.Tags()["scalars"])
    end = metadata.parse_session_end_info_plugin_data(content["_hparams_/session_end_info"])
    assert end.status == api_pb2.STATUS_SUCCESS


@pytest.mark.slow
def test_a_resumed_run_has_each_point_once(run, reader, monkeypatch):
    """The event file is ahead of the checkpoint, as after a crash, and a TensorBoard that runs has read it already."""
    folder = Path("runs/a")
    with monkeypatch.context() as patch:
        patch.setattr(train, "summarize", full_disk)
        assert run(f"{SMALL} --output {folder} --tensorboard")[0] == 2
    shutil.rmtree(folder / "checkpoints/60")
    running = reader(folder)
    assert len(points(running, "loss")) == 60

    status, out, err = run(f"--resume {folder}")
    assert status == 0, err
    assert "after step 40 of 60" in out
    assert_equals_history(reader(folder), folder)
    assert_equals_history(running.Reload(), folder)


def full_disk(*_arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_a_run_continues_on_a_full_disk_and_its_event_file_is_complete_in_the_end(run, reader, monkeypatch):
    from tensorboardX import RecordWriter

    failures, flush = iter([full_disk] * 3), RecordWriter.flush
    monkeypatch.setattr(RecordWriter, "flush", lambda writer: next(failures, flush)(writer))
    status, out, err = run(f"{SMALL} --output runs/a --tensorboard")
    assert status == 0, err
    assert out.count("runs/a: the event file could not be written (No space left on device)") == 1
    assert_equals_history(reader("runs/a"), Path("runs/a"))


@pytest.mark.slow
def test_a_run_whose_event_file_is_never_written_ends_with_3_and_can_be_resumed(run, reader, monkeypatch):
    from tensorboardX import RecordWriter

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full_disk)
        status, _, err = run(f"{SMALL} --output runs/a --tensorboard")
    assert status == 3
    assert err.startswith("jaxnet train: runs/a: the results could not be written (No space left on device)")
    assert run("--resume runs/a --tensorboard")[0] == 0
    assert_equals_history(reader("runs/a"), Path("runs/a"))


@pytest.mark.slow
def test_a_diverged_run_is_no_success(run, reader):
    status, _, err = run("--learning-rate 1e30 --steps 50 --output runs/a --tensorboard")
    assert status == 1
    assert len(err.splitlines()) == 1
    events, summary = reader("runs/a"), json.loads(Path("runs/a/summary.json").read_text())
    assert len(points(events, "loss")) == summary["steps"]
    assert "_hparams_/session_end_info" not in events.PluginTagToContent("hparams")


def test_without_tensorboardx_one_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run("--output runs/a --tensorboard") == (2, "", f"jaxnet train: tensorboard: {INSTALL}\n")
    assert not Path("runs").exists()

    Path("unfinished").mkdir()
    Path("unfinished/options.json").write_text(run_folder.options_text({}))
    Path("unfinished/events.out.tfevents.1700000000.host").touch()
    status, out, err = run("--resume unfinished")
    assert (status, out) == (2, "")
    assert err.startswith("jaxnet train: resume: unfinished has an event file; delete it, or ")
    assert err.endswith(f"{INSTALL}\n")
