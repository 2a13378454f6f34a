"""`spot status`, `spot ls`: how far runs are, by what is in their bucket."""
