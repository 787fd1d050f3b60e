"""The command `jaxnet`, which runs the others: `jaxnet train`, `jaxnet check`, and so on."""

import sys
from importlib import import_module

COMMANDS = {
    "train": "train a network, and leave a folder with what came of it",
    "check": "check gradients: a network's, or those of code of your own",
    "sweep": "train many networks in one program, and draw where that works",
    "layers": "list the layers, in JAX and by hand",
    "bench": "compare the training with other libraries and with bounds",
    "chapter6": "draw what chapter 6 of the book shows, from runs of its own",
    "scaling": "measure the training over several devices",
}
USAGE = "usage: jaxnet COMMAND [OPTIONS]; jaxnet COMMAND --help lists a command's options"
UNKNOWN = 2


def main() -> None:
    """Runs the command that the first argument names, with the arguments that follow.

    Raises:
        SystemExit: With status 2 where there is no such command.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE, *(f"  {command:<10} {text}" for command, text in COMMANDS.items()), sep="\n")
        return
    if name not in COMMANDS:
        print(f"jaxnet: {name}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(UNKNOWN)
    sys.argv = [f"jaxnet {name}", *arguments]
    try:
        command = import_module(f"jaxnet.cli.{name}")
    except ModuleNotFoundError as error:
        from jaxnet.data.datasets import DISTRIBUTION

        print(f'jaxnet {name}: needs more ({error}): pip install "{DISTRIBUTION}[train]"', file=sys.stderr)
        sys.exit(UNKNOWN)
    command.run()
