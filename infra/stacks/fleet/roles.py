"""Google's roles that a run's identity has in the project as a whole."""

RANKS = "-ranks"
"""How the name of the firewall rule ends that lets ranks of a run talk."""

IN_PROJECT = ("roles/logging.logWriter", "roles/monitoring.metricWriter")
