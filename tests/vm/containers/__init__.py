"""VMs as containers: real systemd, the real installer, Google's own script runner, a power switch."""
