"""Cross-check the gradients of a network, then train it and write the results to a folder.

Without options, this trains a 64-50-10 network on the handwritten digits of scikit-learn. `--dataset mnist` repeats the
run of the notebook. `--network` selects another network: deep, convolutional, or a transformer that learns a text.

On Ctrl-C, SIGTERM or SIGHUP the run saves its current step and stops; after a crash, its last checkpoint remains. In
both cases `--resume FOLDER` continues it, and the results are the same, bit for bit, as without the interruption. Where
they would not be, as with another number of cores, it refuses; `--resume-anyway` continues all the same.

Exit status: 0 if the network was trained, 1 if training diverged, nothing was learned, or the gradients disagree, 2 for
an invalid option, 3 if something could not be saved, 4 if another process of the run died, and 128 plus the number of
the signal that stopped the run.
"""

import sys
import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import fields
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from rich.console import Console

import jaxnet
from jaxnet.cli.common_options import check_devices
from jaxnet.cli.errors import program, silence_closed_loops
from jaxnet.cli.interrupt import interrupt_message
from jaxnet.cli.program_cache import use_program_cache
from jaxnet.cli.train.loop import FAILED_TO_SAVE, Outcome, train, warn
from jaxnet.cli.train.options import LAUNCH, Options, changed_options, command_line, from_record, resolve
from jaxnet.cli.train.results import summarize, write_results
from jaxnet.cli.train.setup import Setup, cross_check, set_up
from jaxnet.common.progress_line import progress_line
from jaxnet.data import DatasetError
from jaxnet.train import run_folder, sharding
from jaxnet.train.checkpoints import CheckpointError, Checkpoints, crc, identity
from jaxnet.train.event_file import EventFile, has_event_file, require_tensorboardx
from jaxnet.train.execution import execution
from jaxnet.train.matmul_layout import FORMS, Form
from jaxnet.train.run_lock import locked
from jaxnet.train.run_plan import RunPlan, plan_run

ERRORS = (DatasetError, CheckpointError)


def main(options: Options) -> None:
    """Trains a network, or resumes a run."""
    resolved = resolve_options(options)
    if resolved.tensorboard:
        require_tensorboardx("tensorboard")
    silence_closed_loops()
    start_jax(resolved)
    with sharding.exit_on_failure():
        run(resolved, Console(quiet=resolved.process > 0))


def run(options: SimpleNamespace, console: Console) -> None:
    """Sets up a run, cross-checks its gradients, trains, and writes the results."""
    name = getattr(options, "dataset", options.network)
    with (
        run_folder.named_or_reserved(options.resume or options.output, name) as folder,
        interrupt_message(partial(what_is_saved, folder)),
        ExitStack() as held,
    ):
        train_in(folder, options, console, held)


def what_is_saved(folder: Path) -> str:
    """Returns what Ctrl-C leaves of a run that it ends at once."""
    if (folder / run_folder.SUMMARY).exists():
        return f"interrupted; the results are in {folder}"
    if (step := run_folder.last_checkpoint(folder)) is not None:
        return f"interrupted; saved is the checkpoint after step {step:,}; continue with --resume {folder}"
    if run_folder.is_unfinished(folder):
        return f"interrupted; no step is saved; start again with --resume {folder}, or remove it"
    return "interrupted; nothing is saved"


def train_in(folder: Path, options: SimpleNamespace, console: Console, held: ExitStack) -> None:
    """Runs in a folder, which is new unless a run is resumed; the first process enters its lock into `held`."""
    check = run_folder.check_resumable if options.resume else run_folder.check_new
    sharding.check_on_first_process(lambda: check(folder))
    option = "resume" if options.resume else "output"
    sharding.check_on_first_process(lambda: held.enter_context(locked(option, folder)))
    with progress_line("drawing the initial weights and the batches"):
        setup = set_up(options)
    checkpoints = checkpoints_of(folder, setup)
    resume = last_progress(folder, setup, checkpoints, console) if options.resume else None
    arguments = setup.net, setup.params, setup.data, setup.batches
    described = setup.optimization | {"weight_decay": options.weight_decay, "eval_every": options.eval_every}
    with progress_line("checking the options of the run"):
        plan = plan_run(*arguments, mesh=setup.mesh, **described)
    if not options.resume:
        cross_check(setup, console)
    samples = f"{len(setup.data.x_train):,} {'windows of text' if setup.vocabulary else 'images'}"
    console.print(f"Training on {samples}: {options.steps:,} steps of {options.batch_size}", style="bold")
    started, clock = datetime.now().astimezone(), time.perf_counter()
    form = form_of(setup, plan, console) or plan.config.form
    with progress_line("copying the data to the device"):
        steps = jaxnet.iter_fit(
            *arguments, mesh=setup.mesh, max_data_bytes=options.max_data_bytes, form=form, resume=resume, **described
        )
    if not options.resume:
        sharding.check_on_first_process(lambda: run_folder.write_options(folder, setup.recorded_options))
    writes_events = options.tensorboard and options.process == 0
    events = EventFile(folder, setup.recorded_options, setup.held_out) if writes_events else None
    with closing(events) if events else nullcontext():
        followed = events.follow(steps, partial(warn, console)) if events else steps
        outcome = train(setup, followed, checkpoints, console)
        if options.process == 0:
            seconds = time.perf_counter() - clock
            with progress_line("evaluating"):
                outcome = outcome._replace(state=sharding.local_copy(outcome.state))
                summary = summarize(setup, outcome, started, seconds)
                summary |= {"form": str(form), "resumed_with_other_bits": checkpoints.changes}
            finish(folder, setup, outcome, summary, events, console)


def form_of(setup: Setup, plan: RunPlan, console: Console) -> Form | None:
    """Returns the form of the products, as it is asked for or recorded, or measured if it is; None for the usual one.

    Several devices and data that they do not hold are not measured.
    """
    options = setup.options
    if options.form is not None:
        return FORMS[options.form]
    if options.resume or setup.mesh is not None or options.max_data_bytes is not None:
        return None
    with progress_line("measuring the first steps"):
        form = jaxnet.fastest_form(plan)
    if form is not None:
        setup.recorded_options["form"] = str(form)
        console.print(f"Products are computed in the form {form}, which is the fastest here", style="bold")
    return form


def checkpoints_of(folder: Path, setup: Setup) -> Checkpoints:
    """Returns the checkpoints in the folder of a run, which describe the run and how it is executed."""

    def described() -> dict[str, str]:
        arguments = identity(setup.net, setup.data, setup.batches, jnp.float32, setup.recorded_options)
        characters = np.array(list(setup.vocabulary))
        return arguments | {"vocabulary": f"{len(characters)} characters, CRC-32 {crc(characters):08x}"}

    executed = partial(execution, setup.mesh)
    if setup.options.processes > 1:  # the first one compares and records, but all must take part now
        executed = partial(dict, sharding.of_all_processes(executed()))
    return Checkpoints(folder / "checkpoints", described, executed, seconds=setup.options.checkpoint_seconds)


def last_progress(folder: Path, setup: Setup, checkpoints: Checkpoints, console: Console) -> jaxnet.Progress | None:
    """Reads the last checkpoint of a run, and tells from which step on it continues, and with which bits.

    Raises:
        CheckpointError: If it cannot be read, is that of another run, or was written by one that was executed in
            another way, unless the run is resumed anyway.
    """
    warnings: list[str] = []

    def refuse(differences: str) -> None:
        raise CheckpointError(f"{differences}; --resume-anyway continues with other bits")

    def accept(differences: str) -> None:
        warnings.append(f"{differences}; continuing with other bits")

    initial = jaxnet.initial_state(setup.net, setup.params, **setup.optimization)
    with progress_line("reading the last checkpoint"):
        resume = checkpoints.latest(initial, warnings.append, accept if setup.options.resume_anyway else refuse)
    for warning in warnings:
        warn(console, warning)
    console.print(resumed_at(folder, setup.options.steps, resume), style="bold", soft_wrap=True)
    return resume


def resumed_at(folder: Path, steps: int, progress: jaxnet.Progress | None) -> str:
    """Returns the line that tells where a run is resumed."""
    if progress is None:
        return f"No checkpoint: starting {folder} from step 0"
    loss = progress.history.loss
    reached = f", loss {loss[-1]:.4f}" if len(loss) else ""
    return f"Resuming {folder} after step {len(loss):,} of {steps:,}{reached}"


def finish(
    folder: Path, setup: Setup, outcome: Outcome, summary: dict[str, Any], events: EventFile | None, console: Console
) -> None:
    """Writes the results of a run, and prints accuracies, files and errors."""
    save_error = outcome.save_error
    parts = [part for part in ("train", "validation", "test") if f"{part}_accuracy" in summary]
    accuracies = ", ".join(f"{part} accuracy {summary[f'{part}_accuracy']:.2%}" for part in parts)
    console.print(f"{accuracies}, {summary['seconds']:.1f} s with compilation", style="bold", soft_wrap=True)
    try:
        if events:  # before the summary, which makes the run complete
            trained = outcome.divergence is None
            events.finish(outcome.history, test_accuracy=summary.get("test_accuracy"), trained=trained)
        write_results(folder, setup, outcome, summary, console)
    except OSError as error:
        reason = error.strerror or error
        save_error = f"{folder}: the results could not be written ({reason}); free some space, then use --resume"
    if folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.iterdir()))
        console.print(f"{folder}: {names}", highlight=False, soft_wrap=True)
    if save_error:
        print(f"{program()}: {save_error}", file=sys.stderr)
    if outcome.divergence:
        sys.exit(f"{program()}: {outcome.divergence}")
    if save_error:
        sys.exit(FAILED_TO_SAVE)
    if summary["loss_rose"] and not summary["learned_nothing"]:
        print(f"{program()}: {summary['loss_rose']}; try a smaller --learning-rate", file=sys.stderr)
    if summary["learned_nothing"]:
        advice = "try another learning rate (--learning-rate) or other initial weights (--init-std)"
        sys.exit(f"{program()}: the network learned nothing: {summary['learned_nothing']}; {advice}")


def resolve_options(options: Options) -> SimpleNamespace:
    """Returns the options with the defaults of the network, or those of the run to resume."""
    if options.resume is None:
        if options.resume_anyway:
            raise ValueError("resume_anyway: set without --resume; name the folder of an unfinished run with --resume")
        return resolve(options)
    if options.output is not None:
        raise ValueError("output: a resumed run stays in its folder; leave it out")
    changed = changed_options(options)
    if (options.resume / run_folder.SUMMARY).exists():
        summary = run_folder.read_summary(options.resume / run_folder.SUMMARY)
        longer = command_line((summary.get("options") or {}) | {"steps": "STEPS"} | changed)
        raise ValueError(
            f"resume: {options.resume} is a complete run of {summary.get('steps')} steps, whose optimizer state is not "
            f"kept; to train longer, start another run with {longer}"
        )
    recorded = run_folder.read_options(options.resume)
    if changed:
        raise ValueError(
            f"{', '.join(changed)}: a resumed run keeps the options that it was started with; leave out "
            f"{', '.join(changed)}, or start another run with {command_line(recorded | changed)}"
        )
    launch = {name: getattr(options, name) for name in LAUNCH}
    if has_event_file(options.resume):
        require_tensorboardx(f"resume: {options.resume} has an event file; delete it, or continue it, which")
        launch["tensorboard"] = True
    return from_record(recorded, launch)


def start_jax(options: SimpleNamespace) -> None:
    """Turns on the cache of compiled programs, simulates devices, and connects to the other processes."""
    config: Any = jax.config
    if config.jax_compilation_cache_dir is None:  # compilation takes half the time of the default run
        use_program_cache(platformdirs.user_cache_path("jaxnet") / "programs")
    if options.devices is not None and options.processes == 1:
        check_devices(options.devices)
        config.update("jax_num_cpu_devices", options.devices)  # has no effect on other kinds of devices
    if options.processes == 1 and options.coordinator is not None:
        raise ValueError(f"coordinator: {options.coordinator}, but there is a single process; set --processes")
    if options.processes > 1 and options.output is None and options.resume is None:
        raise ValueError("output: missing, expected the same folder for all processes")
    with progress_line("waiting for the other processes" if options.processes > 1 else "starting JAX"):
        sharding.join(options.coordinator, options.processes, options.process)
    if options.processes > 1:
        check_same_options(options)


def check_same_options(options: SimpleNamespace) -> None:
    """Raises ValueError in all processes, which name the options that they were not all started with."""
    names = [field.name for field in fields(Options) if field.name not in ("process", "coordinator")]
    texts = {name: repr(getattr(options, name, None)) for name in names}
    if names := sharding.differing(texts):
        own = ", ".join(f"--{name.replace('_', '-')} {texts[name]}" for name in names)
        raise ValueError(
            f"{', '.join(names)}: not the same in all processes, this one has {own}; start all with the same options"
        )
