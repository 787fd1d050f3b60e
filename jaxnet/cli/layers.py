"""List the layers in JAX and by hand, as the table of docs/layers.md."""

from dataclasses import dataclass

from jaxnet.cli.catalogue import table


@dataclass(frozen=True)
class Options:
    """List the layers."""


def main(_options: Options) -> None:
    """Prints the table."""
    print(table())
