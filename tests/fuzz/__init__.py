"""Random trials of the cross-check, right and wrong. `python -m fuzz` runs them in `tests`."""
