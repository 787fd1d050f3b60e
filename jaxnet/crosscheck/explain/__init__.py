"""Says what was probably written, seen from how a gradient is wrong."""
