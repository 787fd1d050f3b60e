"""Trains with many learning rates and initial weights at once, as `jaxnet sweep` does."""

from jaxnet.cli.sweep import run

if __name__ == "__main__":
    run()
