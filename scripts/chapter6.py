"""Draws the figures of the book's chapter 6, as `jaxnet chapter6` does."""

from jaxnet.cli.chapter6 import run

if __name__ == "__main__":
    run()
