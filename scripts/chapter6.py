"""Draws the figures of the book's chapter 6, as `jaxnet chapter6` does."""

from jaxnet.cli.start import run_command

if __name__ == "__main__":
    run_command("chapter6")
