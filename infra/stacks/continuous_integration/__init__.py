"""Deployments from GitHub Actions, without a key that could leak."""
