"""Explains measurements and verdicts: names the slip in a wrong gradient, and words the report."""
