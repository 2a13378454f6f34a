"""Tracking: views of a run's metrics elsewhere, made of what is committed in its bucket alone."""
