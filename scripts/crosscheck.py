"""Checks the gradients of your own code or of this project, as `jaxnet check` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("check")
