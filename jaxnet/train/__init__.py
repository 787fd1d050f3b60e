"""Training: one compiled program for all steps of a run, what it saves, and many runs at once."""
