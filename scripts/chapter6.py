"""Draws what chapter 6 of the book shows, from runs of its own: the same as `jaxnet chapter6`."""

from jaxnet.cli.chapter6 import run

if __name__ == "__main__":
    run()
