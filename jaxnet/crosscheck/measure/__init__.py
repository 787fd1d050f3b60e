"""Measures noise, derivatives, kinks and behaviour. Returns numbers and enums, no verdicts."""
