"""The cloud: what Terraform builds from a run file."""
