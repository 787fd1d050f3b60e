"""Runs `python -m jaxnet`, which is the command `jaxnet`."""

from jaxnet.cli.start import main

if __name__ == "__main__":
    main()
