"""Trains many networks in one program, and draws where that works: the same as `jaxnet sweep`."""

from jaxnet.cli.sweep import run

if __name__ == "__main__":
    run()
