"""Cross-check a network's gradients, then train it, and leave a folder with what came of it.

Without options: 64-50-10 on the handwritten digits that scikit-learn embeds. `--dataset mnist` is the notebook's run,
`--network` another network: a deep one, a convolutional one, a transformer that learns to write a text.

Interrupted, or told to stop, it saves where it is; killed, it has saved where it was some seconds ago.
`--resume FOLDER` goes on from there, to the same bits as if nothing had happened.

Exit status: 0 trained, 1 diverged or gradients that disagree, 2 an option that cannot be, 3 not all could be saved,
128 and the signal's number where a signal stopped it.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pooch
import tyro
from jax.sharding import Mesh
from rich.console import Console

import jaxnet
from jaxnet import plots
from jaxnet.cli.ending import one_line, program
from jaxnet.cli.options import WHERE, Options, begun_with, settled
from jaxnet.cli.progress import training
from jaxnet.cli.results import draw_images, show_text
from jaxnet.cli.subjects import build, cross_check, optimizer, prepare
from jaxnet.data import Dataset, DatasetError
from jaxnet.train import run_folder, sharding
from jaxnet.train.checkpoints import CheckpointError, Checkpoints, identity
from jaxnet.validation import check_counts

FAILED_TO_SAVE = 3


def main(options: SimpleNamespace, console: Console) -> None:
    """Everything in order: data, network, cross-check, training, results.

    Raises:
        ValueError: An option is out of range.
        DatasetError: The data cannot be had.
        CheckpointError: There is none to go on from.
        SystemExit: The gradients disagree, training diverged or was stopped, or something could not be saved.
    """
    subject = options.network if options.network == "transformer" else options.dataset
    folder = options.resume or options.output or Path("runs", f"{subject}-{datetime.now():%Y%m%d-%H%M%S}")
    alone, first_of_all = options.processes == 1, options.process == 0
    if not options.resume:
        sharding.check_on_first_process(lambda: run_folder.check_new(folder))

    data, vocabulary = prepare(options)
    key = jax.random.key(options.seed)
    key_params, key_batches = jax.random.split(key)
    key_steps, key_text = jax.random.split(jax.random.fold_in(key, 1))
    name, net = build(options, data, vocabulary)
    params = net.init(key_params, options.init_std)
    batches = jaxnet.draw_batches(key_batches, len(data.x_train), options.batch_size, options.steps)
    optimization: dict[str, Any] = {
        "optimizer": optimizer(options),
        "learning_rate": options.learning_rate,
        "clip_norm": options.clip_norm,
        "key": key_steps,
    }
    first = jaxnet.initial_state(net, params, **optimization)
    mesh = sharding.mesh(options.devices) if options.devices is not None or not alone else None
    told = {k: v for k, v in vars(options).items() if k not in WHERE}
    made_of = json.loads(json.dumps(told, default=str))  # as a run that goes on will read it
    checkpoints = Checkpoints(
        folder / "checkpoints",
        lambda: identity(net, data, batches, jnp.float32, made_of),
        seconds=options.checkpoint_seconds,
    )

    def tell(message: str) -> None:
        console.print(f"{program()}: {message}", style="red", highlight=False, soft_wrap=True)

    resume = None
    if options.resume:
        resume = checkpoints.latest(first, tell)
        after = (
            f"Going on after step {int(resume.state.step):,}" if resume else "Nothing is saved here: beginning again"
        )
        console.print(after, style="bold")
    run = jaxnet.iter_fit(  # checks its arguments before anything is written
        net, params, data, batches, weight_decay=options.weight_decay, eval_every=options.eval_every, mesh=mesh,
        resume=resume, **optimization,
    )  # fmt: skip
    if not options.resume:
        cross_check(name, net, params, data, options, key_steps, console)
        sharding.check_on_first_process(lambda: run_folder.write_options(folder, made_of))
    samples = "windows of text" if vocabulary else "images"
    console.print(
        f"Training on {len(data.x_train):,} {samples}: {options.steps:,} steps of {options.batch_size}", style="bold"
    )
    started = time.perf_counter()
    state, history, diverged, unsaved = watched(run, checkpoints, options.steps, mesh, console, tell)
    seconds = time.perf_counter() - started
    if not first_of_all:
        return
    state = sharding.local_copy(state)

    summary = {
        "dataset": subject,
        "network": name,
        "steps": len(history.loss),
        "seed": options.seed,
        "train_accuracy": float(history.train_accuracy[-1]),
        "test_accuracy": float(history.test_accuracy[-1]),
        "final_loss": float(history.loss[-1]) if len(history.loss) else None,
        "seconds": round(seconds, 3),
        "steps_per_second": round(len(history.loss) / seconds, 1),
        "diverged": diverged,
        "options": made_of,
    }
    console.print(
        f"train accuracy {summary['train_accuracy']:.2%}, test accuracy {summary['test_accuracy']:.2%}, "
        f"{seconds:.1f} s with compilation",
        style="bold",
    )
    try:
        with run_folder.results(folder) as into:
            run_folder.write_history(into / "history.csv", history)
            plots.learning_curves(history).savefig(into / "learning_curves.png")
            if not diverged:
                summary |= kept(net, state, data, vocabulary, key_text, options, into, console)
            run_folder.write_summary(into / "summary.json", summary)
    except OSError as error:
        unsaved = f"{folder}: the results could not be written ({error.strerror or error}); make room, then --resume it"

    if folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.iterdir()))
        console.print(f"{folder}: {names}", highlight=False, soft_wrap=True)
    if unsaved:
        print(f"{program()}: {unsaved}", file=sys.stderr)
    if diverged:
        sys.exit(f"{program()}: {diverged}")
    if unsaved:
        sys.exit(FAILED_TO_SAVE)


def watched(
    run: Iterator[jaxnet.Progress],
    checkpoints: Checkpoints,
    steps: int,
    mesh: Mesh | None,
    console: Console,
    tell: Callable[[str], None],
) -> tuple[jaxnet.TrainState, jaxnet.History, str | None, str | None]:
    """The run to its end, shown and saved as it goes: final state and history, why it diverged, what is not saved.

    Raises:
        SystemExit: A signal stopped it.
    """
    unsaved: str | None = None
    try:
        with training(console, steps) as show, asked_to_stop() as asked:
            for progress in run:
                show(progress)
                stopping = sharding.placement(mesh).any(bool(asked)) and len(progress.history.loss) < steps
                try:
                    checkpoints.save(progress) if stopping else checkpoints.offer(progress)
                    unsaved = None
                except CheckpointError as error:  # the training is worth more than the checkpoint
                    if unsaved is None:
                        tell(str(error))
                    unsaved = str(error)
                if stopping:
                    break
        checkpoints.finish()
    except jaxnet.DivergedError as error:
        return error.state, error.history, str(error), unsaved
    except CheckpointError as error:
        unsaved = str(error)
    if stopping:
        step, folder = len(progress.history.loss), checkpoints.folder.parent
        if unsaved:
            print(f"{program()}: stopped after step {step}, which is not saved: {unsaved}", file=sys.stderr)
            sys.exit(FAILED_TO_SAVE)
        print(f"{program()}: stopped and saved after step {step}; --resume {folder} goes on", file=sys.stderr)
        sys.exit(128 + (asked or [signal.SIGTERM])[0])  # or the first process was asked
    return *progress, None, unsaved


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM is put into. The second one does what it always does."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def kept(
    net: jaxnet.nn.Layer,
    state: jaxnet.TrainState,
    data: Dataset,
    vocabulary: str,
    key: Any,
    options: SimpleNamespace,
    into: Path,
    console: Console,
) -> dict[str, float]:
    """The trained network, and what it makes of its data; returns what the summary says more."""
    run_folder.write_parameters(into / "parameters.npz", state, **({"vocabulary": vocabulary} if vocabulary else {}))
    logits = jaxnet.predict(net, state.params, state.net_state, data.x_test)
    if not vocabulary:
        draw_images(state.params, data, np.asarray(logits), into)
        return {}
    loss = float(jaxnet.softmax_cross_entropy(logits, jnp.asarray(data.t_test)))
    show_text(net, state, vocabulary, loss, key, options, into, console)
    return {"test_loss": loss}


def keep_programs() -> None:
    """What XLA has compiled once it need not compile again, in the next run: half of the default job's time."""
    config: Any = jax.config
    if config.jax_compilation_cache_dir is None:
        config.update("jax_compilation_cache_dir", str(pooch.os_cache("jaxnet") / "programs"))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def chosen() -> SimpleNamespace:
    """The options of the command line, or of the run that it goes on with.

    Raises:
        ValueError: They cannot be.
    """
    options = tyro.cli(Options, description=__doc__)
    if not 0 <= options.checkpoint_seconds < math.inf:
        raise ValueError(f"checkpoint_seconds: {options.checkpoint_seconds}, expected a finite number >= 0")
    if options.resume is None:
        return settled(options)
    if options.output is not None:
        raise ValueError("output: a run that goes on stays in its folder; leave it out")
    where = {name: getattr(options, name) for name in WHERE}
    if options != Options(**where):
        raise ValueError("resume: goes on with the options that the run was begun with; give no others")
    return begun_with(run_folder.read_options(options.resume), where)


def gather(options: SimpleNamespace) -> Console:
    """Join the other processes, if there are any, and have as many devices as are asked for.

    Returns where this process may print: nowhere unless it is the first.
    """
    config: Any = jax.config
    if options.devices is not None:
        check_counts(devices=options.devices)
        if options.processes == 1:
            config.update("jax_num_cpu_devices", options.devices)  # of other kinds there are as many as there are
    if options.processes == 1 and options.coordinator is not None:
        raise ValueError(f"coordinator: {options.coordinator}, for one process alone; say with --processes how many")
    if options.processes > 1 and options.output is None and options.resume is None:
        raise ValueError("output: none is given, expected the same folder for all processes")
    sharding.join(options.coordinator, options.processes, options.process)
    return Console(quiet=options.process > 0)


def run() -> None:
    """Runs the command with the arguments of this process, and ends it where they cannot be followed."""
    try:
        with one_line(DatasetError, CheckpointError):
            keep_programs()
            options = chosen()
            console = gather(options)
            with sharding.exit_on_failure():
                main(options, console)
    except KeyboardInterrupt:
        print(f"{program()}: interrupted; nothing since the last checkpoint is kept", file=sys.stderr, flush=True)
        os._exit(130)  # at once: a compiled program may still run, and the interpreter would wait for it
