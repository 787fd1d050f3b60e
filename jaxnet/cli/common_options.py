"""Options that several commands have, and checks of their values. It does not import JAX."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.extras import literal_type_from_choices

from jaxnet.common.validation import check_counts, check_no_control_characters

COUNTS = (
    "hidden", "steps", "batch_size", "eval_every", "context", "width", "blocks", "seeds", "devices", "model_devices",
    "max_data_bytes",    "rounds",
)  # fmt: skip
MAX_DEVICES = 4096  # that a process simulates, which JAX starts in 20 s


def computed_default(metavar: str) -> Any:
    """Returns the help settings of an option that is None by default: the help describes the default in words."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def choice(table: Iterable[str], text: str | None = None) -> Any:
    """Returns the settings of an option whose values are the keys of a table; `text` replaces its docstring as help."""
    constructor, metavar = literal_type_from_choices(table), f"{{{','.join(table)}}}"
    return tyro.conf.arg(constructor=constructor, metavar=metavar, help=text, help_behavior_hint="")


OptionalInt = Annotated[int | None, computed_default("INT")]
OptionalInts = Annotated[tuple[int, ...] | None, computed_default("INT [INT ...]")]
OptionalFloat = Annotated[float | None, computed_default("FLOAT")]
OptionalStr = Annotated[str | None, computed_default("STR")]
OptionalPath = Annotated[Path | None, computed_default("PATH")]
Floats = Annotated[tuple[float, ...], computed_default("FLOAT [FLOAT ...]")]
Strings = Annotated[tuple[str, ...], computed_default("STR [STR ...]")]

Integers = Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT [INT ...]")]
Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]

Seed = Annotated[int, tyro.conf.arg(help="Seed of all random numbers. The same seed gives the same results.")]
Steps = Annotated[int, tyro.conf.arg(help="Training steps of a run.")]
BatchSize = Annotated[int, tyro.conf.arg(help="Samples per step, drawn with replacement.")]
HiddenSizes = Annotated[Integers, tyro.conf.arg(help="Units of each hidden layer, first to last.")]
ValidationShare = Annotated[
    float,
    tyro.conf.arg(
        help="Share of the training data that is held out. If above 0, the accuracy during the run is that on the "
        "held-out data, and the test data are evaluated only once, at the end."
    ),
]
Processes = Annotated[int, tyro.conf.arg(help="Number of processes that run this command together.")]
ProcessIndex = Annotated[int, tyro.conf.arg(help="Number of this process, from 0.")]


def check_common(options: object) -> None:
    """Raises ValueError if the seed or a count among a command's options is out of range."""
    values = vars(options)
    check_seed(values.get("seed", 0))
    if not 0 <= values.get("validation", 0) < 1:
        raise ValueError(f"validation: {values['validation']}, expected a share in [0, 1) of the training data")
    for name in COUNTS:
        value = values.get(name, ())
        for count in value if isinstance(value, (tuple, list)) else [value]:
            if count is not None:
                check_counts(**{name: count})


def check_devices(count: int) -> None:
    """Raises ValueError if JAX would need minutes and gigabytes to simulate this many devices."""
    if count > MAX_DEVICES:
        raise ValueError(f"devices: {count}, expected at most {MAX_DEVICES:,}, which are simulated by this machine")


def check_seed(seed: int) -> None:
    """Raises ValueError unless JAX's keys and NumPy's generators accept the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed}, expected a whole number from 0 to 2^32 - 1")


def check_writable(option: str, path: Path | None, suffix: str = "") -> None:
    """Raises ValueError unless a file can be written there, before the work whose result it stores.

    Args:
        option: The name of the option.
        path: The file; None is accepted.
        suffix: The end of its name, such as ".png". Defaults to any.
    """
    if path is None:
        return
    check_no_control_characters(option, path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option}: {path}, expected a file in an existing folder")
    if suffix and path.suffix.lower() != suffix:
        raise ValueError(f"{option}: {path}, expected a name that ends in {suffix}, such as {path.stem}{suffix}")
