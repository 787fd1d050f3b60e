"""Measure what training over several devices communicates and how long it takes: the tables of docs/scaling.md.

Bytes are read from the compiled step. Seconds are those of simulated devices, which share the cores of one machine:
they show the cost of communication, not the speedup of real devices. With `--processes 2`, the command is started
twice, with `--process 0` and `--process 1`: sums then go over gloo, and bytes on the loopback interface are counted.
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

import jaxnet
from jaxnet.cli.common_options import BatchSize, HiddenSizes, Integers, Processes, ProcessIndex, Steps, Switch
from jaxnet.common.progress_line import progress_line
from jaxnet.train import compiled_steps, sharding, step_config
from jaxnet.train.device_data import to_device

ROWS, FEATURES, CLASSES = 8192, 784, 10
REPEATS = 5  # of a measurement, of which the fastest counts
ITEM_SIZES = {"pred": 1, "u8": 1, "s8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
FLOPS, BANDWIDTH, LATENCY = 50e12, 50e9, 5e-6  # assumed for a device: 1/s, bytes/s, s
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


@dataclass(frozen=True)
class Options:
    """Measure training over several devices."""

    devices: Integers = (1, 2, 4, 8)
    """Numbers of simulated devices, one row of the table each."""
    hidden: HiddenSizes = (50,)
    batch_size: BatchSize = 96
    weak: Switch = False
    """Weak scaling: the batch size is that of each device, not of all together."""
    steps: Steps = 200
    model: Switch = False
    """Print the times that a model predicts from assumed devices, and measure nothing."""
    coordinator: str = "localhost:12355"
    """HOST:PORT on which process 0 of several listens."""
    processes: Processes = 1
    process: ProcessIndex = 0

    def total_batch_size(self, devices: int) -> int:
        """Returns the rows of a step over all devices."""
        return self.batch_size * (devices if self.weak else 1)


def communicated_bytes(program: str) -> tuple[int, int, int]:
    """Returns the bytes that a compiled program communicates: gradient and loss, rows and labels, and row numbers."""
    sums = rows = numbers = 0
    for results, kind in COLLECTIVE.findall(program):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", results)  # dtypes and dimensions
        size = sum(ITEM_SIZES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)
        if kind == "all-gather":
            numbers += size
        elif kind == "all-reduce" and ("f32", "") in arrays and any("," in dims for _, dims in arrays):
            sums += size  # the loss is a scalar, the gradient has matrices
        elif kind == "all-reduce":
            rows += size
    return sums, rows, numbers


def loopback_bytes() -> int:
    """Returns the bytes that this machine has sent to itself, or 0 on a system other than Linux."""
    counters = Path("/proc/net/dev")
    match = re.search(r"lo:\s*(\d+)", counters.read_text()) if counters.exists() else None
    return int(match[1]) if match else 0


def measure(options: Options, count: int) -> tuple[str, float, float]:
    """Returns the compiled step on this many devices, its seconds, and its bytes on the loopback interface."""
    rng = np.random.default_rng(0)
    x, t = np.float32(rng.integers(0, 256, (ROWS, FEATURES)) / 255), rng.integers(0, CLASSES, ROWS).astype(np.int32)
    batch_size = options.total_batch_size(count)
    net = jaxnet.multi_layer_net(FEATURES, options.hidden, CLASSES)
    params = net.init(jax.random.key(0), "he")
    config, hyperparameters = step_config.configure(net, params, learning_rate=0.01, mesh=sharding.mesh(count))
    devices = config.devices
    devices.check_batch_size(batch_size)
    batches = jaxnet.draw_batches(jax.random.key(1), ROWS, batch_size, options.steps)
    state = jaxnet.initial_state(net, params, learning_rate=0.01)
    state, hyperparameters, batches = devices.replicate((state, hyperparameters, batches))
    samples = to_device(devices.shard_rows(x), jnp.float32), devices.shard_rows(t)
    arguments = hyperparameters, state, compiled_steps.TrainingData(*samples, batches), options.steps
    run: Any = compiled_steps.compile_for(compiled_steps.run_steps, net, params, batch_size, "config", "max_steps")
    program = run.lower(config, *arguments, max_steps=options.steps).compile()
    seconds, sent = [], []
    for _ in range(REPEATS):
        before, started = loopback_bytes(), time.perf_counter()
        np.asarray(program(*arguments)[1])
        seconds.append(time.perf_counter() - started)
        sent.append(loopback_bytes() - before)
    return program.as_text(), min(seconds) / options.steps, min(sent) / options.steps


def predict_seconds(gradient_bytes: int, batch_size: int, devices: int, row_bytes: int) -> float:
    """Returns the seconds of a step over a ring of devices; `row_bytes` is 0 if each draws from its own rows."""
    computation = 6 * gradient_bytes / 4 * batch_size / FLOPS / devices  # 6 operations and 4 bytes per parameter
    communication = 2 * (devices - 1) / devices * (gradient_bytes + batch_size * row_bytes) / BANDWIDTH
    return computation + communication + LATENCY * math.log2(devices)


def print_model(options: Options, gradient_bytes: int) -> None:
    """Prints the predicted times, and the speedup over a single device that trains the same number of rows."""
    print("devices  rows per step  ms, rows of all devices  speedup  ms, rows of its own  speedup")
    single = predict_seconds(gradient_bytes, options.batch_size, 1, FEATURES)
    for count in options.devices:
        batch_size = options.total_batch_size(count)
        shared, own = (predict_seconds(gradient_bytes, batch_size, count, row) for row in (FEATURES, 0))
        serial = single * batch_size / options.batch_size
        print(
            f"{count:7}  {batch_size:13,}  {1e3 * shared:23.4f}  {serial / shared:7.4g}  "
            f"{1e3 * own:19.4f}  {serial / own:7.4g}"
        )


def print_measurement(options: Options, count: int, gradient_bytes: int) -> None:
    """Measures a number of devices, and prints a row of the table."""
    with progress_line(f"measuring {count} device{'s'[: count - 1]}"):
        program, seconds, sent = measure(options, count)
    sums, rows, numbers = communicated_bytes(program)
    ring = round(2 * (count - 1) / count * gradient_bytes)
    sent = sent if options.processes > 1 else 0
    print(f"{count:7}  {sums:17,}  {rows:15,}  {numbers:11,}  {ring:19,}  {1e3 * seconds:11.3f}  {sent:13,.0f}")


def main(options: Options) -> None:
    """Prints a row for each number of devices."""
    simulated = max(options.devices, default=1) if options.processes == 1 and not options.model else 1
    jax.config.update("jax_num_cpu_devices", simulated)  # type: ignore[no-untyped-call]
    sharding.join(options.coordinator, options.processes, options.process)
    sizes = (FEATURES, *options.hidden, CLASSES)
    gradient_bytes = 4 * sum((m + 1) * n for m, n in pairwise(sizes))
    scope = "per device" if options.weak else "over all devices"
    print(f"{'-'.join(map(str, sizes))}, batches of {options.batch_size} {scope}, gradient {gradient_bytes:,} bytes")
    if options.model:
        print_model(options, gradient_bytes)
        return
    print("devices  gradient and loss  rows and labels  row numbers  2(n-1)/n * gradient  ms per step  over loopback")
    for count in options.devices if options.processes == 1 else [options.processes]:
        print_measurement(options, count, gradient_bytes)
