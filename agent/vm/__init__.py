"""The machine: systemd, and the instance group that it belongs to."""
