"""Kills training runs at random moments, resumes them to their end, and compares the bits of the parameters.

    python tests/campaigns/kills.py --kills 200 --seconds 720 --seed 0

Each run is killed by SIGKILL up to four times, at moments that are drawn from the duration of an undisturbed run, and
then resumed until it is complete. Checkpoints are written nearly all the time. Of two processes, one is killed, and the
other must end by itself. The table that is printed is that of docs/damage.md. The exit status is 1 if a run ended in
another way than it must, or with other bits.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
SAVING = "--checkpoint-seconds 0"
RUNS = {  # arguments, with {folder} for that of the campaign
    "two-layer": "--steps 300 --eval-every 10",
    "deep": "--network deep --hidden 20 20 --batch-norm --dropout 0.2 --steps 200 --eval-every 10",
    "simple-conv": "--network simple-conv --steps 40 --eval-every 2 --batch-size 20",
    "transformer": (
        "--network transformer --text {folder}/text.txt --context 16 --width 8 --blocks 1 --batch-size 8 --steps 40 "
        "--eval-every 2"
    ),
    "two-layer, 2 devices": "--devices 2 --steps 200 --eval-every 10",
    "two-layer, 2 processes": "--processes 2 --steps 200 --eval-every 10",
}
THREADS = 3  # that run campaigns
PATIENCE = 300.0  # seconds, of a process that is not killed


def start(run: str, arguments: list[str]) -> list[subprocess.Popen]:
    """Starts the process or the two processes of a run."""
    command = [sys.executable, "-m", "jaxnet", "train", *arguments, *SAVING.split()]
    if "processes" not in run:
        return [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    numbered = [[*command, "--coordinator", address, "--process", number] for number in "01"]
    return [subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for one in numbered]


def arguments_of(run: str, folder: Path, output: Path) -> list[str]:
    """Returns the arguments that start a run, or resume it if it has begun."""
    processes = ["--processes", "2"] if "processes" in run else []
    devices = ["--devices", "2"] if "devices" in run else []
    if (output / "options.json").exists():
        return ["--resume", str(output), *processes, *devices]
    return [*RUNS[run].format(folder=folder).split(), "--output", str(output)]


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Waits for processes, and returns their statuses and what they wrote to stderr."""
    try:
        outputs = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def is_wrong(results: list[tuple[int, str]]) -> bool:
    """Returns whether a run that was killed, or of which one process was, ended in another way than it must."""
    survivors = [(status, output) for status, output in results if status not in (0, -signal.SIGKILL)]
    return any(status == 1 or "Traceback" in output for status, output in survivors)


def disturb(run: str, folder: Path, output: Path, moment: float) -> str:
    """Starts or resumes a run and kills it after some seconds; returns what was saved then, or what went wrong."""
    processes = start(run, arguments_of(run, folder, output))
    time.sleep(moment)
    victim = random.choice(processes)
    was_alive = victim.poll() is None
    victim.kill()
    results = finish(processes)
    if is_wrong(results) or (not was_alive and any(status for status, _ in results)):
        return f"WRONG: {results}"
    if not was_alive or (output / "summary.json").exists():
        return "complete"
    return "checkpoint" if any(output.glob("checkpoints/[0-9]*")) else "none"


def campaign(run: str, folder: Path, kills: int, deadline: float) -> Counter:
    """Kills a run this often, or until the deadline, and returns how often which result was found."""
    counts, complete = Counter(), folder / f"{run} whole"
    assert all(status == 0 for status, _ in finish(start(run, arguments_of(run, folder, complete))))
    started = time.monotonic()  # of another one, whose programs are compiled
    assert all(status == 0 for status, _ in finish(start(run, arguments_of(run, folder, folder / f"{run} again"))))
    duration = time.monotonic() - started
    expected = (complete / "parameters.npz").read_bytes()
    while counts["kills"] < kills and time.monotonic() < deadline:
        output = folder / f"{run} {counts['runs']}"
        for _ in range(random.randint(1, 4)):
            result = disturb(run, folder, output, random.uniform(0, duration))
            counts["kills"] += result != "complete"
            counts[result] += 1
            if result == "complete":
                break
        if not (output / "summary.json").exists():
            counts.update(f"WRONG: {end}" for end in finish(start(run, arguments_of(run, folder, output))) if end[0])
        counts["runs"] += 1
        parameters = output / "parameters.npz"
        counts["same bits"] += parameters.exists() and parameters.read_bytes() == expected
        left = [path.name for path in folder.glob(f".{output.name}*")]
        counts["leftovers"] += bool(left)
        print(f"{run}: {dict(counts)}", file=sys.stderr, flush=True)
    return counts


def main() -> None:
    """Runs the campaigns, three at a time, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=720)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    started, each = time.monotonic(), -(-options.kills // len(RUNS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # compiled programs that are written when a kill comes

        def run_campaign(run: str) -> Counter:  # three at a time, so each may take half of the time
            return campaign(run, folder, each, time.monotonic() + options.seconds * THREADS / len(RUNS))

        with ThreadPoolExecutor(THREADS) as pool:
            results = dict(zip(RUNS, pool.map(run_campaign, RUNS), strict=True))
    print("| run | kills | before its first checkpoint | after it | runs | with the same bits | leftovers |")
    print("|---|---|---|---|---|---|---|")
    for run, counts in [*results.items(), ("all", sum(results.values(), Counter()))]:
        names = "kills", "none", "checkpoint", "runs", "same bits", "leftovers"
        print("|", " | ".join([run, *(str(counts[name]) for name in names)]), "|")
    wrong = [f"{run}: {text}" for run, counts in results.items() for text in counts if text.startswith("WRONG")]
    print(*wrong, sep="\n")
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(bool(wrong) or any(counts["same bits"] != counts["runs"] for counts in results.values()))


if __name__ == "__main__":
    main()
