"""Compares training loops, as `jaxnet bench` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("bench")
