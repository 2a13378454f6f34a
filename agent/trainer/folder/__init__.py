"""Any program as a trainer (`kind: command`): its folder is committed whole, and brought back whole."""
