"""List the layers in both worlds, as in the README's table."""

from jaxnet.cli.catalogue import table


def run() -> None:
    """Prints the table."""
    print(table())
