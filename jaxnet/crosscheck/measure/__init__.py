"""Measures: noise, steps, derivatives, kinks and behaviour. Numbers and enums, no verdicts and no words."""
