"""Measure Headrace against its performance targets: `python -m bench`.

Each target is a count, or a ratio within one run.
"""
