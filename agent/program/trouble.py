"""What can stand between a VM and the user's program."""

from __future__ import annotations


class PrepareError(Exception):
    """The program's code, environment or setup can't be had on this VM: on a second one the run is at fault."""
