"""The scripts as a person runs them: what they print, leave, refuse, and exit with."""

import csv
import importlib
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from conftest import AS_A_USER

import jaxnet
import numpy_ref
from jaxnet.data import text
from jaxnet.train import run_folder
from jaxnet.train.checkpoints import CheckpointError, Checkpoints

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """A script run as `python scripts/NAME ARGUMENTS`, in this process, whose imports and programs are warm."""

    def run_script(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.syspath_prepend(ROOT / "scripts")  # as `python scripts/NAME` does
        try:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            message = stopped.code if isinstance(stopped.code, str) else ""
            print(message, end="\n" if message else "", file=sys.stderr)  # as the interpreter does on its way out
            status = 1 if message else int(stopped.code or 0)
        return Done(status, *capsys.readouterr())

    return run_script


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The one run in a process of its own, as on a new machine."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, ROOT / "scripts" / "train.py", "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=AS_A_USER), output


def test_the_default_run_reaches_96_percent_and_says_so(default_run):
    done, output = default_run
    assert done.returncode == 0, done.stderr
    summary = json.loads((output / "summary.json").read_text())
    assert summary["test_accuracy"] >= 0.96
    assert summary["dataset"] == "digits"
    assert summary["steps"] == 2000
    assert summary["seed"] == 0
    assert summary["train_accuracy"] >= summary["test_accuracy"]
    assert summary["steps_per_second"] == pytest.approx(2000 / summary["seconds"], rel=0.01)
    assert f"test accuracy {summary['test_accuracy']:.2%}" in done.stdout
    assert done.stdout.index("PASS  64-50-10") < done.stdout.index("Training on")


def test_progress_is_plain_lines_where_nobody_watches(default_run):
    done, _ = default_run
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == 10
    assert lines[-1].split()[1] == "2000"
    assert "\x1b" not in done.stdout + done.stderr


def test_the_folder_holds_all_that_is_promised(default_run):
    _, output = default_run
    assert {path.name for path in output.iterdir()} - {"checkpoints"} == {  # of a run that took over ten seconds
        "first_layer_weights.png", "history.csv", "learning_curves.png",
        "mistakes.png", "parameters.npz", "summary.json",
    }  # fmt: skip
    for path in output.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_parameters_it_leaves_are_those_it_reports(default_run):
    _, output = default_run
    with np.load(output / "parameters.npz") as leaves:
        params = {f"Affine{i}": {leaf: leaves[f"Affine{i}.{leaf}"] for leaf in ("W", "b")} for i in (1, 2)}
    network = numpy_ref.TwoLayerNet(64, 50, 10, params=params)
    data = jaxnet.data.digits()
    summary = json.loads((output / "summary.json").read_text())
    assert network.accuracy(data.x_test, data.t_test) == pytest.approx(summary["test_accuracy"], abs=1e-6)


def test_the_history_it_leaves_ends_where_the_summary_does(default_run):
    _, output = default_run
    with (output / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((output / "summary.json").read_text())
    assert len(rows) == 2001
    assert float(rows[-1]["test_accuracy"]) == pytest.approx(summary["test_accuracy"])
    assert float(rows[-1]["loss"]) == pytest.approx(summary["final_loss"])


TAKEN = {
    "two-layer": [
        "--hidden 20", "--activation tanh", "--batch-norm", "--dropout 0.2", "--init-std he", "--optimizer adam",
        "--learning-rate 0.05", "--schedule cosine", "--clip-norm 0.01", "--weight-decay 0.01", "--batch-size 50",
        "--steps 21", "--seed 3", "--dataset mnist",
    ],
    "transformer": ["--context 9", "--width 12", "--blocks 1", "--dropout 0", "--text other.txt"],
}  # fmt: skip
USED = {"two-layer": "--steps 20", "transformer": "--context 8 --width 8 --steps 2 --batch-size 2 --text some.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("network", TAKEN)
def test_every_option_alone_makes_another_run(run, tmp_path, monkeypatch, network):
    """What is trained is other where any one of them is other; and what it is not told of is the same twice."""
    monkeypatch.chdir(tmp_path)
    Path("some.txt").write_text("the quick brown fox jumps over the lazy dog, " * 20)
    Path("other.txt").write_text("the quick brown dog jumps over the lazy fox, " * 20)
    made = {}
    for i, option in enumerate(["", "--eval-every 7", *TAKEN[network]]):
        if "mnist" in option and "JAXNET_DATA" not in os.environ:
            continue
        done = run("train.py", *f"--network {network} {USED[network]} {option} --output run{i}".split())
        assert done.returncode == 0, (option, done.stderr)
        made[option] = (Path(f"run{i}") / "parameters.npz").read_bytes()
    assert made.pop("--eval-every 7") == made[""]
    assert len(set(made.values())) == len(made)


def test_the_options_are_written_down(run, tmp_path):
    options = (
        "--hidden 20 10 --activation tanh --init-std xavier --optimizer adam --learning-rate 0.005 --batch-size 50"
    )
    done = run("train.py", *f"{options} --steps 130 --eval-every 60 --seed 3 --output {tmp_path / 'run'}".split())
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["network"] == "64-20-10-10"
    assert summary["options"]["learning_rate"] == 0.005
    assert summary["options"]["optimizer"] == "adam"
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        assert leaves["Affine2.W"].shape == (20, 10)
    with (tmp_path / "run" / "history.csv").open() as file:
        evaluated = [int(row["step"]) for row in csv.DictReader(file) if row["test_accuracy"]]
    assert evaluated == [0, 60, 120, 130]


def saved(folder, net):
    return run_folder.read_parameters(folder / "parameters.npz", net)


@pytest.mark.slow
def test_a_deep_network_is_saved_with_its_running_statistics_key_and_step(run, tmp_path):
    options = "--network deep --hidden 12 9 --batch-norm --dropout 0.1 --weight-decay 1e-3 --schedule cosine --steps 40"
    done = run("train.py", *options.split(), "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "PASS  64-12-9-10" in done.stdout
    assert "Cross-check on 9 training images" in done.stdout
    net, data = jaxnet.multi_layer_net(64, [12, 9], 10, batch_norm=True, dropout=0.1), jaxnet.data.digits()
    params, state, key, step = saved(tmp_path / "run", net)
    assert step == 40
    assert key.shape == ()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = jaxnet.accuracy(net.infer(params, state, data.x_test), data.t_test)
    assert float(found) == pytest.approx(summary["test_accuracy"], abs=1e-6)
    assert summary["options"]["optimizer"] == "adam"


@pytest.mark.slow
def test_a_convolutional_network_is_trained_on_images(run, tmp_path):
    options = f"--network simple-conv --steps 3 --batch-size 4 --eval-every 3 --output {tmp_path / 'run'}"
    done = run("train.py", *options.split())
    assert done.returncode == 0, done.stderr
    assert "PASS  simple-conv" in done.stdout
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        assert leaves["Convolution1.W"].shape == (30, 1, 5, 5)
        assert leaves["step"] == 3
    assert (tmp_path / "run" / "first_layer_weights.png").exists()
    assert (tmp_path / "run" / "mistakes.png").exists()


def test_the_deep_convolutional_network_is_built_for_its_images(monkeypatch):
    """It is trained by test_deep_networks; at the book's size that takes minutes."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    options, subjects = (importlib.import_module(f"jaxnet.cli.{name}") for name in ("options", "subjects"))
    chosen = options.settled(options.Options(network="deep-conv"))
    data, vocabulary = subjects.prepare(chosen)
    assert data.x_train.shape == (1442, 1, 8, 8)
    name, net = subjects.build(chosen, data, vocabulary)
    params = jax.eval_shape(lambda key: net.init(key, "he"), jax.random.key(0))
    assert name == "deep-conv"
    assert params["Convolution1"]["W"].shape == (16, 1, 3, 3)
    assert jax.eval_shape(net.infer, params, net.state, data.x_test).shape == (355, 10)


@pytest.mark.slow
def test_the_transformer_learns_a_text_and_writes(run, tmp_path):
    (tmp_path / "mine.txt").write_text("abcabcabd\n" * 60)
    options = "--network transformer --context 8 --width 8 --blocks 1 --steps 150 --eval-every 50 --temperature 0.5"
    options += f" --dropout 0 --learning-rate 0.02 --text {tmp_path / 'mine.txt'} --output {tmp_path / 'run'}"
    done = run("train.py", *options.split())
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"held-out text: {summary['test_loss']:.3f} nats" in done.stdout
    assert summary["test_loss"] < 0.5  # a text of five characters at random: 1.6
    written = (tmp_path / "run" / "sample.txt").read_text()
    assert written in done.stdout
    assert written.count("abc") > 40
    net = jaxnet.transformer(5, 8, 8, 4, 1)
    params, state, _, step = saved(tmp_path / "run", net)
    assert step == 150
    with np.load(tmp_path / "run" / "parameters.npz") as leaves:
        vocabulary = str(leaves["vocabulary"])
    assert vocabulary == "\nabcd"
    data = text.windows("abcabcabd\n" * 60, vocabulary, 8)
    loss = jaxnet.softmax_cross_entropy(net.infer(params, state, data.x_test), data.t_test)
    assert float(loss) == pytest.approx(summary["test_loss"], abs=1e-5)


@pytest.mark.slow
def test_a_backward_of_any_network_that_is_wrong_is_not_trained(run, tmp_path, monkeypatch):
    right = numpy_ref.Convolution.backward

    def wrong(self, dout):
        dx = right(self, dout)
        self.dW = self.dW * 1.001
        return dx

    monkeypatch.setattr(numpy_ref.Convolution, "backward", wrong)
    done = run("train.py", "--network", "simple-conv", "--steps", "3", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "Convolution1.W" in done.stdout
    assert "Training on" not in done.stdout


@pytest.mark.slow
def test_chapter_6_is_drawn(run, tmp_path):
    done = run("chapter6.py", "--steps", "10", "--hidden", "9", "8", "--output", str(tmp_path / "pictures"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nobody watches
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "activations_relu.png", "activations_sigmoid.png", "activations_tanh.png", "batch_norm.png",
        "optimizer_paths.png", "optimizers.png", "overfitting.png",
    }  # fmt: skip
    again = run("chapter6.py", "--output", str(tmp_path / "pictures"))
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.slow
def test_a_sweep_leaves_a_picture_and_a_row_for_each_run(run, tmp_path):
    options = "--learning-rates 0.01 0.5 1e30 --init-stds 0.1 0.5 --seeds 2 --hidden 8 --steps 60"
    done = run("sweep.py", *options.split(), "--output", str(tmp_path / "sweep"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 runs of 60 steps at once")
    assert "best: learning rate 0.5" in done.stdout
    assert "4 of 12 diverged" in done.stdout
    assert done.stderr == ""  # nobody watches
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["learning_rate"]), float(row["init_std"]), row["seed"]) for row in rows[:3]] == [
        (0.01, 0.1, "0"), (0.01, 0.1, "1"), (0.01, 0.5, "0"),
    ]  # fmt: skip
    assert [row["diverged"] for row in rows] == ["False"] * 8 + ["True"] * 4
    assert rows[-1]["test_accuracy"] == ""
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    lost = run("sweep.py", *f"--learning-rates 1e30 --init-stds 1 --steps 5 --output {tmp_path / 'lost'}".split())
    assert "all 1 runs diverged; take lower learning rates" in str(lost)
    assert lost.returncode == 1
    assert (tmp_path / "lost" / "sweep.png").exists()
    refused = run("sweep.py", "--learning-rates", "-1", "--output", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("sweep.py: learning_rates[0]: -1")
    assert not (tmp_path / "other").exists()


def test_divergence_ends_the_run_with_its_history(run, tmp_path):
    done = run("train.py", "--learning-rate", "1e30", "--steps", "50", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert re.match("train.py: training diverged: the output of Affine2 is (nan|infinite) at step 2", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "learning rate" in summary["diverged"]
    assert 0 < summary["steps"] < 50
    with (tmp_path / "run" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == summary["steps"] + 1


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_saves_and_goes_on_to_the_same_bits(run, tmp_path):
    options = ["--steps", "1000", "--eval-every", "20", "--optimizer", "momentum", "--checkpoint-seconds", "0"]
    whole = run("train.py", *options, "--output", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    stopped = tmp_path / "stopped"
    command = [sys.executable, ROOT / "scripts" / "train.py", *options, "--output", stopped]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("step "):
            pass
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "stopped and saved after step" in stderr
    assert f"--resume {stopped}" in stderr
    assert {path.name for path in stopped.iterdir()} == {"checkpoints", "options.json"}
    refused = run("train.py", "--output", str(stopped))
    assert refused.returncode == 2
    assert "use --resume" in refused.stderr

    done = run("train.py", "--resume", str(stopped))
    assert done.returncode == 0, done.stderr
    assert "Going on after step" in done.stdout
    assert not (stopped / "options.json").exists()
    with np.load(tmp_path / "whole" / "parameters.npz") as one, np.load(stopped / "parameters.npz") as other:
        assert all(one[leaf].tobytes() == other[leaf].tobytes() for leaf in one.files)
    assert (tmp_path / "whole" / "history.csv").read_bytes() == (stopped / "history.csv").read_bytes()
    again = run("train.py", "--resume", str(stopped))
    assert again.returncode == 2
    assert "is a complete run" in again.stderr


@pytest.mark.slow
def test_two_processes_train_what_one_does(run, tmp_path):
    options = ["--steps", "60", "--eval-every", "20"]
    alone = run("train.py", *options, "--output", str(tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        ROOT / "scripts" / "train.py",
        *options,
        "--output",
        tmp_path / "two",
        "--processes",
        "2",
    ]
    first, second = (
        subprocess.Popen(
            [*command, "--coordinator", f"localhost:{port}", "--process", str(process)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in (0, 1)
    )  # fmt: skip
    said, quiet = (process.communicate(timeout=200)[0] for process in (first, second))
    assert (first.returncode, second.returncode) == (0, 0), said + quiet
    assert "test accuracy" in said
    assert "step" not in quiet
    with np.load(tmp_path / "alone" / "parameters.npz") as one, np.load(tmp_path / "two" / "parameters.npz") as two:
        for leaf in one.files:  # float32 sums in another order
            np.testing.assert_allclose(two[leaf], one[leaf], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_of_two_processes_both_end_at_once_where_the_first_refuses(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "scripts" / "train.py", "--output", tmp_path, "--processes", "2"]
    both = [
        subprocess.Popen(
            [*command, "--coordinator", f"localhost:{port}", "--process", str(process)],
            stderr=subprocess.PIPE, text=True,
        )
        for process in (0, 1)
    ]  # fmt: skip
    first, second = (process.communicate(timeout=25)[1] for process in both)  # JAX itself would wait for 30 seconds
    assert [process.returncode for process in both] == [2, 2], first + second
    assert "exists already" in first
    assert "a check failed in the first process" in second


def test_training_goes_on_where_no_checkpoint_can_be_saved(run, tmp_path, monkeypatch):
    def full(self, progress):
        raise CheckpointError("checkpoints: no checkpoint could be saved (no space left)")

    monkeypatch.setattr(Checkpoints, "offer", full)
    done = run("train.py", "--steps", "50", "--output", str(tmp_path / "run"))
    assert done.returncode == 3
    assert done.stdout.count("no space left") == 1  # said when it happens, and not at every checkpoint
    assert "no space left" in done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"hidden": 50}, "hidden is 50"),
        ({"hidden": None}, "hidden is None"),
        ({"dataset": "cifar"}, "dataset is 'cifar'"),
        ({"batch_norm": 1}, "batch_norm is 1"),
        ({"width": 64}, "width is 64"),
        ({"optimizer": ...}, "optimizer is missing"),
        ({"network": None}, "network is None"),
        ({"seed": 10**30}, "seed: 1000000000000000000000000000000, expected"),
    ],
)
def test_options_that_are_not_as_they_were_written_are_refused_by_name(run, tmp_path, change, found):
    done = run("train.py", "--steps", "20", "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    options = json.loads((tmp_path / "run" / "summary.json").read_text())["options"] | change
    (tmp_path / "begun").mkdir()
    told = {name: value for name, value in options.items() if value is not ...}
    (tmp_path / "begun" / "options.json").write_text(json.dumps(told))
    refused = run("train.py", "--resume", str(tmp_path / "begun"))
    assert refused.returncode == 2
    assert found in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("network", ["two-layer", "deep", "simple-conv", "deep-conv", "transformer"])
def test_a_run_goes_on_from_the_options_that_it_wrote(run, tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    Path("some.txt").write_text("the quick brown fox jumps over the lazy dog, " * 20)
    own = {"transformer": "--context 8 --width 8 --text some.txt", "deep": "--batch-norm --dropout 0.1 --hidden 9 8"}
    done = run(
        "train.py", *f"--network {network} --steps 3 --batch-size 4 {own.get(network, '')} --output whole".split()
    )
    assert done.returncode == 0, done.stderr
    Path("begun").mkdir()
    Path("begun/options.json").write_text(json.dumps(json.loads(Path("whole/summary.json").read_text())["options"]))
    again = run("train.py", "--resume", "begun")
    assert again.returncode == 0, again.stderr
    assert "Nothing is saved here: beginning again" in again.stdout
    assert Path("begun/parameters.npz").read_bytes() == Path("whole/parameters.npz").read_bytes()


RESUMED = {
    "nothing there": ("--resume nowhere", "resume: nowhere is not the folder of an unfinished run"),
    "other options": ("--resume nowhere --steps 5", "resume: goes on with the options that the run was begun with"),
    "another folder": ("--resume nowhere --output other", "output: a run that goes on stays in its folder"),
    "no seconds": ("--checkpoint-seconds -1", "checkpoint_seconds: -1"),
}


@pytest.mark.parametrize("name", RESUMED)
def test_what_cannot_be_gone_on_with_is_one_line_and_status_2(run, name):
    options, message = RESUMED[name]
    done = run("train.py", *options.split())
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_clip_norm_holds_the_training_back(run, tmp_path):
    """100 steps of at most 0.1 * 1e-9 lead nowhere."""
    done = run("train.py", "--clip-norm", "1e-9", "--steps", "100", "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[100]["train_accuracy"] == rows[0]["train_accuracy"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["options"]["clip_norm"] == 1e-9


REFUSED = {
    "no steps": ("--steps 0", "steps: 0, expected a whole number of at least 1"),
    "negative batch": ("--batch-size -5", "batch_size: -5"),
    "no interval": ("--eval-every 0", "eval_every: 0"),
    "no rate": ("--learning-rate 0", "learning_rate: 0"),
    "nan rate": ("--learning-rate nan", "learning_rate: nan"),
    "no clip norm": ("--clip-norm 0", "clip_norm: 0"),
    "negative scale": ("--init-std -1", "init_std: -1"),
    "unknown scale": ("--init-std big", "init_std: 'big', expected a number, he or xavier"),
    "no units": ("--hidden 50 0", "hidden: 0, expected a whole number of at least 1"),
    "negative seed": ("--seed -1", "seed: -1"),
    "large seed": ("--seed 99999999999999999999", "seed: 99999999999999999999, expected a whole number from 0 to"),
    "no device": ("--devices 0", "devices: 0, expected a whole number of at least 1"),
    "alone with others": ("--coordinator here:1", "coordinator: here:1, for one process alone"),
    "a process too many": ("--process 3", "process: 3, expected 0 to 0"),
    "too many rows": ("--batch-size 2000000000", "steps, batch_size: 2000, 2000000000, expected fewer than"),
    "another's option": (
        "--network simple-conv --hidden 20",
        "hidden: an option of two-layer, deep, not of simple-conv",
    ),
    "images of text": ("--network transformer --dataset mnist", "dataset: an option of two-layer"),
    "a text of images": ("--text mine.txt", "text: an option of transformer, not of two-layer"),
    "no temperature": ("--network transformer --temperature 0", "temperature: 0"),
    "no text": ("--network transformer --text nowhere.txt", "nowhere.txt: cannot be read"),
    "no context": ("--network transformer --context 0", "context: 0"),
    "no width": ("--network transformer --width 6", "width: 6, expected a multiple of 4"),
    "all dropped": ("--dropout 1", "dropout: 1.0, expected a share in [0, 1)"),
    "negative weight decay": ("--weight-decay -1", "weight_decay: -1.0, expected a finite number >= 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_out_of_range_is_one_line_and_status_2(run, name, tmp_path):
    options, message = REFUSED[name]
    done = run("train.py", *options.split(), "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--dataset cifar", "--optimizer sdg", "--steps many", "--no-such-option 3"])
def test_an_unknown_option_is_status_2(run, option):
    done = run("train.py", *option.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_output_that_is_there_is_refused_and_kept(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = run("train.py", "--output", str(tmp_path))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert (tmp_path / "mine").read_text() == "mine"


def test_gradients_that_disagree_are_shown_and_nothing_is_trained(run, tmp_path, monkeypatch):
    def averaged(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.mean(axis=0)
        return dout @ self.W.T

    monkeypatch.setattr(numpy_ref.Affine, "backward", averaged)
    done = run("train.py", "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "the gradients disagree" in done.stderr
    assert "Affine1.b" in done.stdout
    assert "the backward is not the derivative of its own forward" in done.stdout
    assert "the batch size" in done.stdout
    assert "Training on" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_mnist_without_files_or_network_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNET_DATA", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the discard port: nobody answers
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    done = run("train.py", "--dataset", "mnist", "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--dataset digits" in done.stderr
    assert str(tmp_path / "mnist") in done.stderr


@pytest.mark.slow
@pytest.mark.skipif("JAXNET_DATA" not in os.environ, reason="JAXNET_DATA does not say where the MNIST files are")
def test_the_notebooks_run_reaches_its_accuracy(run, tmp_path):
    done = run("train.py", "--dataset", "mnist", "--eval-every", "2500", "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 10_000
    assert summary["test_accuracy"] >= 0.965


@pytest.mark.slow
def test_the_crosscheck_passes_on_all_that_is_here(run):
    done = run("crosscheck.py")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "784-50-10 in the book's order",
        "784-50-10 in the notebook's order",
        "a deep net, with BatchNorm and Dropout",
        "the simple convolutional net",
        "the deep convolutional net",
        "the transformer",
        *set(numpy_ref.networks.LAYERS) - {"BatchNorm"},
        "BatchNorm of vectors",
        "BatchNorm of images",
        "Residual",
        "SoftmaxWithLoss",
        "MeanSquaredError",
    ):
        assert f"PASS  {name}" in done.stdout


def test_the_crosscheck_fails_the_notebook_and_says_why(run):
    done = run("crosscheck.py", "--network", "notebook")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  the notebook as written")
    for leaf in ("Affine1.W", "Affine1.b", "Affine2.W", "Affine2.b"):
        assert f"{leaf}[" in done.stdout
    assert "backward ignores dout" in done.stdout
    assert "overwrites dout" in done.stdout
    assert "they are different functions" in done.stdout
    assert "softmax runs over the whole batch" in done.stdout


MINE = """
import time
import jax.numpy as jnp
import numpy as np

class Affine:
    def __init__(self, W, b, wrong=0):
        self.W, self.b, self.wrong = W, b, wrong

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T * (1 + self.wrong)

def reference(params, x):
    return x @ params["W"] + params["b"]

def forward(x, w):
    return x * w, (x, w)

def backward(dout, cache):
    return dout * cache[1], dout * cache[0]

class Lookup:
    def __init__(self, W):
        self.W = W

    def forward(self, ids):
        self.ids = ids
        return self.W[ids]

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        np.add.at(self.dW, self.ids, dout)

def sine(x):
    return jnp.sin(x)

def stretch(x, by=1, shift=0):
    assert (by, shift) == (1, 3), (by, shift)
    return x * by + shift, by

def unstretch(dout, by):
    return dout * by

def scaled(x, factor):
    return x * factor, factor

def unscaled(dout, factor):
    return {"x": dout * factor * 1.0001}

class Slow(Affine):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


CHECKED = {
    "a class": (":Affine --init 4x3 3 --inputs 5x4", 0, "PASS  Affine"),
    "with a reference": (
        ":Affine --init 4x3 3 --inputs 5x4 --reference MINE:reference --verbose",
        0,
        "W: analytic - autodiff: error",
    ),
    "by name, wrong": (":Affine --init b=3 W=4x3 wrong=0.5 --inputs 5x4", 1, "times 1.5"),
    "a pair": (":forward,backward --inputs 5x4 5x4", 0, "PASS  forward,backward"),
    "inputs by name": (":stretch,unstretch --inputs shift=3 x=5x4", 0, "PASS  stretch,unstretch"),
    "integers": (":Lookup --init 6x3 --inputs 2x5<6", 0, "PASS  Lookup"),
    "single precision": (
        ":Affine --init 4x3 3 --inputs 5x4 --dtype float32 --verbose",
        0,
        "W: float32 - float64: error",
    ),
    "a JAX function": (":sine --inputs 3x4", 0, "PASS  sine"),
    "inconclusive": (":sine --inputs 3x4 --resolution 1e-15", 3, "INCONCLUSIVE  sine"),
    "without a gradient": (":scaled,unscaled --inputs 5x4 5x4 --accuracy 1e-3", 3, "constants=('factor',)"),
    "a constant": (
        ":scaled,unscaled --inputs 5x4 5x4 --accuracy 1e-3 --constants factor",
        0,
        "PASS  scaled,unscaled",
    ),
    "wrong by 1e-4": (":scaled,unscaled --inputs 5x4 5x4 --constants factor", 1, "FAIL  scaled,unscaled"),
    "costs": (":Affine --init 4x3 3 --inputs 5x4 --verbose", 0, "forward passes,"),
    "out of time": (":Slow --init 4x3 3 --inputs 5x4 --max-seconds 0.2", 3, "max_seconds ran out"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_somebodys_own_code_is_checked_from_the_shell(run, mine, name):
    options, status, text = CHECKED[name]
    first, *rest = options.replace("MINE", mine).split()
    done = run("crosscheck.py", mine + first, *rest)
    assert done.returncode == status, done.stderr
    assert text in done.stdout


def test_its_report_is_json_and_its_picture_a_png(run, mine, tmp_path):
    np.savez(tmp_path / "weights.npz", W=np.arange(6.0).reshape(3, 2), b=np.ones(2))
    options = "--json --plot", str(tmp_path / "v.png"), "--inputs 5x3 --init", str(tmp_path / "weights.npz")
    done = run("crosscheck.py", f"{mine}:Affine", *" ".join(options).split())
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert [leaf["name"] for leaf in report["leaves"]] == ["W", "b", "x"]
    for leaf in report["leaves"]:
        assert (leaf["verdict"], leaf["cause"], leaf["derived_by"]) == ("PASS", "AGREES", "analytic")
        assert 0 <= leaf["relative_error"] <= leaf["relative_tolerance"] < 1e-7
        assert leaf["compared"] == leaf["size"]
        assert set(leaf["gaps"]) == {"analytic - numerical"}
    assert report["verdict"] == "PASS"
    assert report["calls"] > 50
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


REFUSED_TARGETS = {
    "no such file": ("nowhere.py:Affine", "there is no file nowhere.py"),
    "no name": ("MINE", "expected FILE.py:NAME"),
    "no such name": ("MINE:Afine", "no Afine in"),
    "no arguments": ("MINE:Affine --inputs 3x4", "say with --init"),
    "no value": ("MINE:Affine --init 4x3 three --inputs 3x4", "'three': expected a shape"),
    "no shape": ("MINE:Affine --init 4x0 3 --inputs 3x4", "a size is below 1"),
    "no weights": ("MINE:Affine --init weights.npz --inputs 3x4", "weights.npz: cannot be read"),
    "no inputs": ("MINE:Lookup --init 4x3", "Lookup.forward: raised TypeError"),
    "no such input": (
        "MINE:stretch,unstretch --inputs 5x4 shft=3",
        "an unexpected keyword argument 'shft'; it takes x, by",
    ),
    "an input twice": ("MINE:sine --inputs 5x4 x=3x4", "multiple values for argument 'x'; it takes x"),
    "of the networks": ("MINE:sine --inputs 3 --network book", "network: an option of the project's own networks"),
    "of a target": ("--inputs 3x4", "inputs: an option of FILE.py:NAME"),
    "of a target, by two words": ("--max-seconds 3", "max_seconds: an option of FILE.py:NAME"),
    "no accuracy": ("MINE:sine --inputs 3 --accuracy -1", "accuracy: -1.0, expected"),
    "no time": ("MINE:sine --inputs 3 --max-seconds 0", "max_seconds: 0.0, expected"),
    "no folder": ("MINE:sine --inputs 3 --plot nowhere/v.png", "expected a file, in a folder that is there"),
}


@pytest.mark.parametrize("name", REFUSED_TARGETS)
def test_a_target_that_cannot_be_checked_is_one_line_and_status_2(run, mine, name):
    options, message = REFUSED_TARGETS[name]
    done = run("crosscheck.py", *options.replace("MINE", mine).split())
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


SCORED = {
    "two tables": ("--growth --kinds", 2, "", "growth, kinds: pass only one"),
    "costs": ("--growth --largest 3", 0, "1,000  dW 1 % off", ""),
}


@pytest.mark.parametrize("name", SCORED)
def test_the_scoreboard_says_what_checks_cost(run, name):
    options, status, printed, refused = SCORED[name]
    done = run("scoreboard.py", *options.split())
    assert done.returncode == status, done.stderr
    assert printed in done.stdout
    assert refused in done.stderr


def test_a_fail_costs_at_most_five_times_a_pass(run, tmp_path):
    done = run("scoreboard.py", "--growth", "--largest", "4", "--output", str(tmp_path / "growth.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "growth.json").read_text())
    assert [row["verdict"] for row in rows] == ["PASS", "FAIL"] * 3
    for right, wrong in zip(rows[::2], rows[1::2], strict=True):
        assert wrong["calls"] <= 5 * right["calls"]


def test_the_scoreboard_runs_the_kinds_of_input(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests")
    kinds = importlib.import_module("mutants.kinds")
    chosen = list(kinds.KINDS)[:4]
    monkeypatch.setattr(kinds, "KINDS", {name: kinds.KINDS[name] for name in chosen})
    done = run("scoreboard.py", "--kinds", "--output", str(tmp_path / "kinds.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "kinds.json").read_text())
    assert found["of"] == len(chosen)
    assert found["as expected"] + len(found["not as expected"]) == found["of"]
    assert f"of {len(chosen)} as expected" in done.stdout
