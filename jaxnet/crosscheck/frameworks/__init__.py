"""Differentiates the code of other frameworks by their own means. Uses those that are loaded, and loads none."""
