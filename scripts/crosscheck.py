"""Checks the gradients of your own code or of this project, as `jaxnet check` does."""

from jaxnet.cli.check import run

if __name__ == "__main__":
    run()
