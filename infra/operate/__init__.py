"""What the operator does with a run in the cloud: deploy it, look at it, rehearse its end, take it away."""
