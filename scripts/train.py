"""Trains a network and writes its results to a folder, as `jaxnet train` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("train")
