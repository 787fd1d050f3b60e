"""Trains a network and writes its results to a folder, as `jaxnet train` does."""

from jaxnet.cli.train import run

if __name__ == "__main__":
    run()
