"""Lists the layers in JAX and by hand, as the table in the README."""

from jaxnet.cli.catalogue import table


def run() -> None:
    """Prints the table."""
    print(table())
