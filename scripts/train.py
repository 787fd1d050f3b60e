"""Trains a network, and leaves a folder with what came of it: the same as `jaxnet train`."""

from jaxnet.cli.train import run

if __name__ == "__main__":
    run()
