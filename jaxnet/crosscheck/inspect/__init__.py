"""Inspects the code to be checked: layers in the class style, pairs of functions, networks, functions of arrays."""
