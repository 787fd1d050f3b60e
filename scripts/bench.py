"""Compares training loops, as `jaxnet bench` does."""

from jaxnet.cli.bench import run

if __name__ == "__main__":
    run()
