"""Checkpoints: from an arena to the bucket and back."""
