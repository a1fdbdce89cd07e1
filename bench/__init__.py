"""Measurements of what Headrace promises, each a ratio in one run or a count: `python -m bench`."""
