"""Composed pictures of which everything is known: what is where, and how many. To train on, and to measure with."""
