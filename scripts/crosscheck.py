"""Checks gradients: a network's, or those of code of your own: the same as `jaxnet check`."""

from jaxnet.cli.check import run

if __name__ == "__main__":
    run()
