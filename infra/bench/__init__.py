"""Measurements that the README quotes; each prints its figures and returns them."""
