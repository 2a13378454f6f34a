"""Experiments: the runs of one grid, side by side, and the table of what came of them."""
