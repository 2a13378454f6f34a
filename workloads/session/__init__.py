"""The trainer's side of a run: a session that a plain training loop holds with a few extra lines."""

from workloads.session.session import Session, SessionError
from workloads.session.state import StateError

__all__ = ["Session", "SessionError", "StateError"]
