"""What runs inside of the VMs."""
