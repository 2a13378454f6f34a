"""`spot doctor`: what stands between this machine and a running fleet, and what to do about each thing."""
