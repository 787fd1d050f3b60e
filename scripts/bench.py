"""Compares the training with other libraries and with bounds: the same as `jaxnet bench`."""

from jaxnet.cli.bench import run

if __name__ == "__main__":
    run()
