"""Runs the command `jaxnet`, which dispatches to `jaxnet train`, `jaxnet check` and the others."""

import sys
from importlib import import_module
from typing import Any

from jaxnet import __version__
from jaxnet.cli.environment import allow_open_files, check_xla_flags, named_variables
from jaxnet.cli.errors import USAGE_ERROR, one_line_errors
from jaxnet.cli.interrupt import end_on_interrupt
from jaxnet.cli.lasting_output import lasting_output
from jaxnet.common.progress_line import progress_line

COMMANDS = {
    "train": "train a network and write its results to a folder",
    "check": "check the gradients of your own code, or of this project's networks",
    "predict": "classify your own images with a trained network, or continue a text",
    "show": "compare training runs in a table and a picture",
    "sweep": "train with many learning rates and initial weights at once, and draw a map",
    "layers": "list the layers, in JAX and by hand",
    "bench": "compare training steps with other libraries and with a lower bound",
    "chapter6": "draw the figures of chapter 6 of Deep Learning from Scratch",
    "scaling": "measure training on several devices",
}
USAGE = "usage: jaxnet [--version] COMMAND [OPTIONS]; jaxnet COMMAND --help lists a command's options"


def main() -> None:
    """Runs the command that the first argument names, with the arguments that follow.

    Raises:
        SystemExit: If there is no such command. The status is 2.
    """
    end_on_interrupt()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--version", "-h", "--help"):
        help_text = [USAGE, *(f"  {command:<10} {text}" for command, text in COMMANDS.items())]
        with lasting_output():
            print(*([f"jaxnet {__version__}"] if name == "--version" else help_text), sep="\n")
    elif name in COMMANDS:
        sys.argv = [f"jaxnet {name}", *arguments]
        run_command(name)
    else:
        from jaxnet.crosscheck.inspect.errors import did_you_mean  # imports NumPy

        near = did_you_mean(name, COMMANDS)
        name = " ".join(name.split())
        print(f"jaxnet: {name}, expected one of {', '.join(COMMANDS)}{near and f'; {near}'}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


def run_command(name: str, room: str = "jaxnet.cli") -> None:
    """Parses and checks the arguments of this process as the `Options` of a module, and passes them to its `main`.

    Raises:
        SystemExit: If a package that the command needs is missing, an option is invalid, or `main` returns a status.
    """
    end_on_interrupt()
    with one_line_errors():
        command = imported(f"{room}.{name}")
        from jaxnet.cli.common_options import check_common
        from jaxnet.cli.parse_options import parse

    with lasting_output(), one_line_errors(*getattr(command, "ERRORS", ())):
        options = parse(command.Options, command.__doc__)
        check_common(options)
        if "jax" in sys.modules:
            allow_open_files()
            check_xla_flags()
        status = command.main(options)
    sys.exit(status)


def imported(module: str) -> Any:
    """Imports the module of a command.

    Raises:
        ImportError: If a package that it needs is missing or does not fit.
        ValueError: If an environment variable has a value that JAX or matplotlib refuses.
    """
    try:
        with progress_line("importing"):
            return import_module(module)
    except ValueError as error:
        raise ValueError(f"{error}{named_variables(str(error))}") from error
