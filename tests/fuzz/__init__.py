"""Random trials of the cross-check with right and wrong gradients; run `python -m fuzz` in `tests`."""
