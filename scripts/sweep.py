"""Trains with many learning rates and initial weights at once, as `jaxnet sweep` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("sweep")
