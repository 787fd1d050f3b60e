"""What training over a mesh exchanges and takes: the tables of docs/scaling.md, measured anew.

Bytes are read off the compiled step; seconds are of simulated devices, which share a machine's cores, so they show what
the exchange costs, not what devices of one's own would gain. With `--processes 2`, started twice, as `--process 0` and
`--process 1`, the sums go over gloo, and what goes over the loopback device is counted.
"""

import math
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxnet
from jaxnet.cli.ending import one_line
from jaxnet.cli.options import check_hidden
from jaxnet.train import compiled_steps, sharding, step_config
from jaxnet.train.device_data import to_device
from jaxnet.validation import check_counts

ROWS, FEATURES, CLASSES = 8192, 784, 10
SIZES = {"pred": 1, "u8": 1, "s8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
FLOPS, BANDWIDTH, LATENCY = 50e12, 50e9, 5e-6  # of a device, sustained: assumed, not measured. /s, bytes/s, s
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


@dataclass(frozen=True)
class Options:
    """Measure what a step exchanges and takes."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """How many simulated devices, one row of the table each."""
    hidden: tuple[int, ...] = (50,)
    """Units of the hidden layers between 784 pixels and 10 classes."""
    batch_size: int = 96
    """Rows a step, over all devices together."""
    weak: bool = False
    """Rows a step for each device instead."""
    steps: int = 200
    """Steps in one measurement; the fastest of five counts."""
    model: bool = False
    """Instead: what is to be expected of these many devices, from assumptions alone."""
    coordinator: str = "localhost:12355"
    """Where process 0 of several listens."""
    processes: int = 1
    """More: one device in each of so many."""
    process: int = 0
    """Which one this is."""


def exchanged(program: str) -> list[tuple[str, str, int]]:
    """Every collective of a compiled program: its kind, the shapes that it makes, their bytes."""
    found = []
    for shapes, kind in COLLECTIVE.findall(program):
        parts = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        size = sum(SIZES[dtype] * int(np.prod([int(n) for n in dims.split(",") if n])) for dtype, dims in parts)
        found.append((kind, " ".join(f"{dtype}[{dims}]" for dtype, dims in parts), size))
    return found


def over_loopback() -> int:
    """Bytes that this machine has ever sent to itself; 0 where Linux does not count them."""
    counts = Path("/proc/net/dev")
    found = re.search(r"lo:\s*(\d+)", counts.read_text()) if counts.exists() else None
    return int(found[1]) if found else 0


def measured(options: Options, count: int) -> tuple[list[tuple[str, str, int]], float, float]:
    """What one step over so many devices exchanges, its seconds, and its bytes over the loopback device."""
    rng = np.random.default_rng(0)
    x, t = np.float32(rng.integers(0, 256, (ROWS, FEATURES)) / 255), rng.integers(0, CLASSES, ROWS).astype(np.int32)
    size = options.batch_size * (count if options.weak else 1)
    net = jaxnet.multi_layer_net(FEATURES, list(options.hidden), CLASSES)
    params = net.init(jax.random.key(0), "he")
    config, hyperparameters = step_config.configure(net, params, learning_rate=0.01, mesh=sharding.mesh(count))
    devices = config.devices
    devices.check_batch_size(size)
    batches = jaxnet.draw_batches(jax.random.key(1), ROWS, size, options.steps)
    state = jaxnet.initial_state(net, params, learning_rate=0.01)
    state, hyperparameters, batches = devices.replicate((state, hyperparameters, batches))
    samples = to_device(devices.shard_rows(x), jnp.float32), devices.shard_rows(t)
    arguments = hyperparameters, state, compiled_steps.TrainingData(*samples, batches), options.steps
    run: Any = compiled_steps.compile_for(compiled_steps.run_steps, net, params, size, "config", "max_steps")
    program = run.lower(config, *arguments, max_steps=options.steps).compile()
    seconds, sent = [], []
    for _ in range(5):
        before, started = over_loopback(), time.perf_counter()
        np.asarray(program(*arguments)[1])
        seconds.append(time.perf_counter() - started)
        sent.append(over_loopback() - before)
    return exchanged(program.as_text()), min(seconds) / options.steps, min(sent) / options.steps


def modelled(gradient: int, size: int, count: int, row: int) -> float:
    """Seconds a step of `size` rows over `count` devices, where a row drawn from the whole is so many bytes.

    6 operations for a row and a parameter of 4 bytes; a ring takes 2(n-1)/n of the bytes past every device.
    """
    computing = 6 * gradient / 4 * size / FLOPS / count
    exchanging = 2 * (count - 1) / count * (gradient + size * row) / BANDWIDTH
    return computing + exchanging + LATENCY * math.log2(count)


def expect(options: Options, gradient: int) -> None:
    """The model's table: `times` is against one device, that would make as many rows in n steps where it is weak."""
    print("devices  rows a step  ms, rows drawn from the whole  times  ms, each its own rows  times")
    alone = modelled(gradient, options.batch_size, 1, FEATURES)
    for count in options.devices:
        size = options.batch_size * (count if options.weak else 1)
        whole, own = (modelled(gradient, size, count, row) for row in (FEATURES, 0))
        work = alone * size / options.batch_size
        print(f"{count:7}  {size:11,}  {1e3 * whole:29.4f}  {work / whole:5.4g}  {1e3 * own:21.4f}  {work / own:5.4g}")


def main(options: Options) -> None:
    """A row for each number of devices."""
    sizes = (FEATURES, *options.hidden, CLASSES)
    gradient = 4 * sum((m + 1) * n for m, n in pairwise(sizes))
    per = "a device" if options.weak else "in all"
    print(f"{'-'.join(map(str, sizes))}, batches of {options.batch_size} {per}, gradient {gradient:,} bytes")
    if options.model:
        expect(options, gradient)
        return
    print("devices  gradient and loss  rows and labels  row numbers  2(n-1)/n * gradient  ms a step  over loopback")
    for count in options.devices if options.processes == 1 else [options.processes]:
        found, seconds, sent = measured(options, count)
        sums = sum(size for kind, shapes, size in found if kind == "all-reduce" and "," in shapes and "f32[]" in shapes)
        rows = sum(size for kind, _, size in found if kind == "all-reduce") - sums
        numbers = sum(size for kind, _, size in found if kind == "all-gather")
        model = round(2 * (count - 1) / count * gradient)
        print(
            f"{count:7}  {sums:17,}  {rows:15,}  {numbers:11,}  {model:19,}  {1e3 * seconds:9.3f}  "
            f"{sent if options.processes > 1 else 0:13,.0f}"
        )


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    with one_line():
        chosen = tyro.cli(Options, description=__doc__)
        check_hidden(chosen.hidden)
        check_counts(batch_size=chosen.batch_size, steps=chosen.steps)
        check_counts(**{f"devices[{i}]": count for i, count in enumerate(chosen.devices)})
        simulated = max(chosen.devices, default=1) if chosen.processes == 1 and not chosen.model else 1
        jax.config.update("jax_num_cpu_devices", simulated)  # type: ignore[no-untyped-call]
        sharding.join(chosen.coordinator, chosen.processes, chosen.process)
        main(chosen)
