"""`spot validate`: a run is trained, and what came of it is held against thresholds."""
