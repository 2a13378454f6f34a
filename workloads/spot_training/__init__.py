"""What a training script holds, so that it can be taken away at any moment and brought back at the same step.

    from spot_training import Session

It needs the standard library and torch alone. `spot_training.protocol`, which the agent shares, does without torch:
so nothing here is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spot_training.data import DataError, ResumableLoader
    from spot_training.link import SessionError
    from spot_training.protocol.tell import saved
    from spot_training.session import Session
    from spot_training.things import Stateful
    from spot_training.values import StateError

__all__ = ["DataError", "ResumableLoader", "Session", "SessionError", "StateError", "Stateful", "saved"]

_HOME = {
    "DataError": "data",
    "ResumableLoader": "data",
    "Session": "session",
    "SessionError": "link",
    "StateError": "values",
    "Stateful": "things",
    "saved": "protocol.tell",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
