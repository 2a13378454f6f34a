"""The wire between a trainer and the agent; no torch here."""
