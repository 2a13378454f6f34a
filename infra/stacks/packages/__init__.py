"""The project's own code, where VMs fetch it from."""
