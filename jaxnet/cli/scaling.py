"""Measure what training over several devices communicates and how long it takes: the tables of docs/scaling.md.

Bytes are read from the compiled step. Seconds are those of simulated devices, which share the cores of one machine:
they show the cost of communication, not the speedup of real devices. With `--processes 2`, the command is started
twice, with `--process 0` and `--process 1`: sums then go over gloo, and bytes on the loopback interface are counted.
"""

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxnet
from jaxnet.cli.bench.problem import Problem, make_problem, parse_network
from jaxnet.cli.bench.products import layer_inputs
from jaxnet.cli.common_options import Integers, Processes, ProcessIndex, Steps, Switch, check_devices
from jaxnet.cli.train.options import DEFAULTS
from jaxnet.common.progress_line import progress_line
from jaxnet.common.validation import check_counts
from jaxnet.nn.summary import param_shapes
from jaxnet.train import compiled_steps, sharding, step_config
from jaxnet.train.device_data import TrainingData, to_device

REPEATS = 5  # of a measurement, of which the fastest counts
ITEM_SIZES = {"pred": 1, "u8": 1, "s8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
FLOPS, BANDWIDTH, LATENCY = 50e12, 50e9, 5e-6  # assumed for a device: 1/s, bytes/s, s
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(.*"
    r'op_name="[^"]*/while/body/([^"]*)"'  # the operation within a step: outside the loop, a run communicates once
)
NETWORK_HELP = (
    f"Sizes of the layers and the batch size, such as 784-50-10@96; or {', '.join(DEFAULTS)}, as `jaxnet train` has "
    "them, with @ and a batch size if wanted. A multiple of the devices that divide the rows. Samples are random."
)


@dataclass(frozen=True)
class Options:
    """Measure training over several devices."""

    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[NETWORK]", help=NETWORK_HELP)] = (
        "784-50-10@96"
    )
    devices: Integers = (1, 2, 4, 8)
    """Numbers of simulated devices, one row of the table each."""
    model_devices: int = 1
    """Parts of each large weight, one for each of so many devices, which then share the same rows."""
    weak: Switch = False
    """Weak scaling: the batch size is that of each device that has its own rows, not of all together."""
    steps: Steps = 20
    predict: Switch = False
    """Print the times that a model predicts from assumed devices, and measure nothing."""
    coordinator: str = "localhost:12355"
    """HOST:PORT on which process 0 of several listens."""
    processes: Processes = 1
    process: ProcessIndex = 0

    def problem(self, devices: int) -> Problem:
        """Returns the network, with the rows of a step over all devices."""
        problem = make_problem(self.network, "random")
        rows = problem.batch_size * (devices // self.model_devices if self.weak else 1)
        return problem._replace(batch_size=rows)


class Communicated(NamedTuple):
    """Bytes of the arrays that a step communicates."""

    gradients: int  # and the loss: sums over the devices with different rows
    activations: int  # and their gradients, between devices with parts of one weight; statistics of BatchNorm
    rows: int  # samples and labels
    row_numbers: int


def communicated(program: str) -> Communicated:
    """Returns the bytes of the arrays that a step of a compiled program communicates."""
    total = dict.fromkeys(Communicated._fields, 0)
    for results, kind, operation in COLLECTIVE.findall(program):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", results)  # dtypes and dimensions
        size = sum(ITEM_SIZES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)
        if operation == "gather":
            purpose = "row_numbers" if kind == "all-gather" else "rows"
        else:
            purpose = "gradients" if ("f32", "") in arrays else "activations"  # the loss is a scalar
        total[purpose] += size
    return Communicated(**total)


def predicted(problem: Problem, devices: int, model_devices: int) -> Communicated:
    """Returns the bytes that a step must communicate if weights are divided as `jaxnet.train.sharding` does.

    Where a weight is divided along its inputs, its outputs are summed; along its outputs, the gradients of its inputs.
    """
    sharing_rows = devices // model_devices  # groups of devices, each with rows of its own
    shapes = list(param_shapes(problem.net).values())
    parts = [1 if sharding.divided_axis(shape, model_devices) is None else model_devices for shape in shapes]
    gradients = 4 + sum(4 * math.prod(shape) // part for shape, part in zip(shapes, parts, strict=True))
    x, t = problem.data.x_train, problem.data.t_train
    item_size = 4 if problem.has_text else 1  # pixels travel as bytes
    row_bytes = item_size * math.prod(x.shape[1:]) + 4 * math.prod(t.shape[1:])
    return Communicated(
        gradients * (sharing_rows > 1),
        4 * exchanged_activations(problem, model_devices) * problem.batch_size // sharing_rows,
        problem.batch_size * row_bytes // model_devices * (sharing_rows > 1),
        2 * 4 * problem.batch_size // model_devices * (sharing_rows > 1),
    )


def exchanged_activations(problem: Problem, model_devices: int) -> int:
    """Returns how many numbers of each sample are exchanged between devices with parts of one weight."""
    exchanged, is_first = 0, True
    for layer, shape in layer_inputs(problem.net, problem.batch_shape(1)):
        kind, weights = layer.description[0], jax.eval_shape(lambda layer=layer: layer.init(jax.random.key(0), 1.0))
        x: Any = jax.eval_shape(lambda kind=kind, shape=shape: jnp.zeros(shape, int if kind == "Embedding" else float))
        y = jax.eval_shape(layer.infer, weights, layer.state, x)
        input_axis = 1 if kind == "Convolution" else 0  # W (F, C, K, K), otherwise (D, M)
        for weight in jax.tree.leaves(weights):
            axis = sharding.divided_axis(weight.shape, model_devices)
            if axis is not None and (axis == input_axis or not is_first):  # the first layer has no use for dx
                exchanged += math.prod((y if axis == input_axis else x).shape)
        is_first = is_first and not weights
    return exchanged


def predict_seconds(problem: Problem, devices: int, model_devices: int, *, exchange_rows: bool) -> float:
    """Returns the seconds of a step on the assumed devices, whose sums go around rings."""
    sharing_rows = devices // model_devices
    sent = predicted(problem, devices, model_devices)
    operations = 2 * sum(product.multiplications(backward=True) for product in problem.products(problem.batch_size))
    rings = ((sharing_rows, sent.gradients + exchange_rows * sent.rows), (model_devices, sent.activations))
    traffic = sum(2 * (n - 1) / n * size for n, size in rings)  # through each device
    return operations / devices / FLOPS + traffic / BANDWIDTH + LATENCY * math.log2(devices)


def loopback_bytes() -> int:
    """Returns the bytes that this machine has sent to itself, or 0 on a system other than Linux."""
    counters = Path("/proc/net/dev")
    match = re.search(r"lo:\s*(\d+)", counters.read_text()) if counters.exists() else None
    return int(match[1]) if match else 0


def measure(problem: Problem, count: int, options: Options) -> tuple[str, float, float]:
    """Returns the compiled step on this many devices, its seconds, and its bytes on the loopback interface."""
    net, params, data = problem.net, problem.params, problem.data
    mesh, steps = sharding.mesh(count, model_devices=options.model_devices), options.steps
    config, hyperparameters = step_config.configure(net, params, learning_rate=0.01, mesh=mesh)
    devices = config.devices
    devices.check_batch_size(problem.batch_size)
    batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), problem.batch_size, steps)
    state = devices.place_state(jaxnet.initial_state(net, params, learning_rate=0.01, key=jax.random.key(0)))
    hyperparameters, batches = devices.replicate((hyperparameters, batches))
    samples = to_device(devices.shard_rows(data.x_train), jnp.float32), devices.shard_rows(data.t_train)
    arguments = hyperparameters, state, TrainingData(*samples, batches), steps
    config = config._replace(form=compiled_steps.usual_form_of_steps(config, params, problem.batch_size))
    run: Any = compiled_steps.compiled_in(config.form, compiled_steps.run_steps, "config", "max_steps")
    program = run.lower(config, *arguments, max_steps=steps).compile()
    seconds, sent = [], []
    for _ in range(REPEATS):
        before, started = loopback_bytes(), time.perf_counter()
        np.asarray(program(*arguments)[1])
        seconds.append(time.perf_counter() - started)
        sent.append(loopback_bytes() - before)
    return program.as_text(), min(seconds) / steps, min(sent) / steps


def print_prediction(options: Options, counts: list[int]) -> None:
    """Prints the predicted times, and the speedup over a single device that trains the same number of rows."""
    print("devices  rows per step  ms, rows of all devices  speedup  ms, rows of its own  speedup")
    for count in counts:
        problem = options.problem(count)
        single = predict_seconds(problem, 1, 1, exchange_rows=False)
        shared, own = (
            predict_seconds(problem, count, options.model_devices, exchange_rows=exchange) for exchange in (True, False)
        )
        print(
            f"{count:7}  {problem.batch_size:13,}  {1e3 * shared:23.4g}  {single / shared:7.3g}  "
            f"{1e3 * own:19.4g}  {single / own:7.3g}"
        )


def print_measurement(options: Options, count: int) -> None:
    """Measures a number of devices, and prints the bytes by purpose, measured and predicted."""
    problem = options.problem(count)
    with progress_line(f"measuring {count} device{'s'[: count - 1]}"):
        program, seconds, sent = measure(problem, count, options)
    rows = communicated(program), predicted(problem, count, options.model_devices)
    columns = [f"{a:,} / {b:,}" for a, b in zip(*rows, strict=True)]
    sent = sent if options.processes > 1 else 0
    print(f"{count:7}  {'  '.join(f'{column:>23}' for column in columns)}  {1e3 * seconds:11.3f}  {sent:13,.0f}")


def main(options: Options) -> None:
    """Prints a row for each number of devices."""
    parse_network(options.network)
    check_counts(model_devices=options.model_devices, steps=options.steps)
    for count in options.devices:
        check_counts(devices=count)
        if count % options.model_devices:
            raise ValueError(f"model_devices: {options.model_devices}, expected a divisor of {count}, one of --devices")
    simulated = max(options.devices, default=1) if options.processes == 1 and not options.predict else 1
    check_devices(simulated)
    jax.config.update("jax_num_cpu_devices", simulated)  # type: ignore[no-untyped-call]
    sharding.join(options.coordinator, options.processes, options.process)
    problem = options.problem(options.model_devices)
    parameters = sum(map(math.prod, param_shapes(problem.net).values()))
    scope = "for each device with its own rows" if options.weak else "over all devices"
    parts = f"large weights in {options.model_devices} parts" if options.model_devices > 1 else "whole weights"
    print(f"{options.network}: {problem.batch_size} rows {scope}, {parameters:,} parameters, {parts}")
    if options.predict:
        print_prediction(options, list(options.devices))
        return
    purposes = "  ".join(f"{field.replace('_', ' '):>23}" for field in Communicated._fields)
    print(f"devices  {purposes}  ms per step  over loopback")
    print(f"{'':7}  {'  '.join(['measured / predicted'.rjust(23)] * 4)}")
    for count in options.devices if options.processes == 1 else [options.processes]:
        print_measurement(options, count)
