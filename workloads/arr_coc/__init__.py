"""Which regions of an image deserve how many tokens, for a question."""
