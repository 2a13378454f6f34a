"""What the operator sees of a run without logging in: figures, a dashboard, alerts, a budget."""
