"""Measures training on several devices, as `jaxnet scaling` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("scaling")
