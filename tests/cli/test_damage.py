"""Damages each file in the folder of an unfinished run: --resume has the right bits, or says what is damaged."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import some
from rich.console import Console

from jaxnet.cli.train import checkpoints_of, last_progress, resolve_options
from jaxnet.cli.train.options import Options
from jaxnet.cli.train.setup import set_up
from jaxnet.train.checkpoints import CheckpointError

pytest.importorskip("orbax.checkpoint")
# after a failed read, tensorstore's threads outlive the event loop, and warn of it
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
RUN = "train --hidden 3 --steps 100000 --batch-size 10 --eval-every 10 --checkpoint-seconds 0.1"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Returns the folder of a run that was stopped after it had saved at least two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    command = [sys.executable, "-m", "jaxnet", *RUN.split(), "--output", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while len(list(folder.glob("checkpoints/[0-9]*"))) < 2 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, errors
    return folder


@pytest.fixture(scope="module")
def expected(stopped, tmp_path_factory):
    """Returns the bits of each checkpoint, by its step."""
    bits_of_step = {}
    for step in steps_of(stopped):
        copy = tmp_path_factory.mktemp("only") / "run"
        others = [other for other in steps_of(stopped) if other != step]
        shutil.copytree(stopped, copy, ignore=shutil.ignore_patterns(*others))
        bits_of_step[step] = bits(resumed(copy))
    return bits_of_step


def flip_bit(file, place):
    content = bytearray(file.read_bytes())
    if content:
        content[int(place * (len(content) - 1))] ^= 1 << 3
    file.write_bytes(content)


def swap(file, other):
    content = file.read_bytes()
    if other.exists():
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)


DAMAGE = {  # of a file, and of the file of the same name in another checkpoint
    "bit at the start": lambda file, _: flip_bit(file, 0),
    "bit in the middle": lambda file, _: flip_bit(file, 0.5),
    "bit at the end": lambda file, _: flip_bit(file, 1),
    "half": lambda file, _: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file, _: file.write_bytes(b""),
    "removed": lambda file, _: file.unlink(),
    "swapped": swap,
}


def steps_of(folder):
    return sorted((path.name for path in folder.glob("checkpoints/[0-9]*")), key=int)


def bits(progress):
    progress = progress._replace(state=progress.state._replace(key=jax.random.key_data(progress.state.key)))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(progress)]


def resumed(folder):
    """Returns where --resume continues the run, from which all later bits follow."""
    setup = set_up(resolve_options(Options(resume=folder)))
    return last_progress(folder, setup, checkpoints_of(folder, setup), Console(stderr=True, soft_wrap=True))


def outcome(folder, expected, capfd):
    """Returns what --resume does: "same", "previous" or "refused"; fails if it has other bits or prints more."""
    capfd.readouterr()
    try:
        progress = resumed(folder)
    except (ValueError, CheckpointError) as error:
        progress, refusal = None, str(error)
    lines = capfd.readouterr().err.splitlines()
    warnings = [line for line in lines if "is damaged" in line and line.endswith("; trying the one before")]
    if progress is None:
        assert (lines, refusal.count("\n")) == (warnings, 0)
        return "refused"
    step = str(int(progress.state.step))
    assert lines[:-1] == warnings
    assert lines[-1].startswith(f"Resuming {folder} after step")
    assert bits(progress) == expected[step]
    assert bool(warnings) == (step != max(expected, key=int))
    return "previous" if warnings else "same"


def damaged(stopped, copy, file, damage):
    """Copies the folder of a run, and damages a file of the copy."""
    shutil.copytree(stopped, copy)
    others = [step for step in steps_of(copy) if step != file.parts[1]] if file.parts[0] == "checkpoints" else []
    other = copy / "checkpoints" / others[-1] / Path(*file.parts[2:]) if others else copy / file
    DAMAGE[damage](copy / file, other)
    return copy


SAMPLE = {  # the kind of a file, damage, and what --resume does
    ("record/metadata", "half"): "previous",
    ("leaves/manifest.ocdbt", "bit in the middle"): "previous",
    ("options.json", "bit in the middle"): "refused",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), SAMPLE)
def test_damage_to_the_last_checkpoint_or_the_options_is_one_line(stopped, expected, tmp_path, capfd, name, damage):
    last = Path("checkpoints", max(expected, key=int))
    file = Path(name) if (stopped / name).exists() else last / name
    assert outcome(damaged(stopped, tmp_path / "run", file, damage), expected, capfd) == SAMPLE[name, damage]


@pytest.mark.slow
@pytest.mark.parametrize("damage", some(DAMAGE, 5))
def test_damage_to_any_file_is_one_line_or_has_the_right_bits(stopped, expected, tmp_path, capfd, damage):
    files = sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file())
    outcomes = [
        outcome(damaged(stopped, tmp_path / str(number), file, damage), expected, capfd)
        for number, file in enumerate(files)
    ]
    with capfd.disabled():
        print(f"{damage}: " + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in sorted({*outcomes})))
