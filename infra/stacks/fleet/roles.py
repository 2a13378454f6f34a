"""Google's roles that a run's identity has in the project as a whole."""

IN_PROJECT = ("roles/logging.logWriter", "roles/monitoring.metricWriter")
