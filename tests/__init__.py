"""Tests, and what they are made of.

This is the only file of its kind here. IPython, which TFX imports, puts a folder on the
path that has a package `tests` of its own. Without this file, Python would take that
one.
"""
