"""Random trials of the cross-check, right and wrong; `python -m fuzz` from `tests` runs them."""
