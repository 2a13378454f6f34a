"""A strike: at a named moment of a step the trainer says that its VM goes now, and is killed once it has saved."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spot_training import Session
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

_PATIENCE_S = 20.0


class Strike:
    """`plan`: `forward:3` (in the forward pass of step 3), `update:3` (its gradients are there), `behind:3`."""

    def __init__(self, plan: str, say: Path) -> None:
        moment, step = plan.split(":")
        self._moment, self._step = moment, int(step)
        self._say = say
        self._session: Session | None = None

    def arm(self) -> None:
        track = Session.track

        def tracked(session: Session, **things: Any) -> int:
            self._session = session
            return track(session, **things)

        Session.track = tracked  # type: ignore[method-assign, assignment]
        update = Session.update

        @contextlib.contextmanager
        def updated(session: Session) -> Iterator[None]:
            self._at("update")
            with update(session):
                yield
                self._at("behind")

        Session.update = updated  # type: ignore[method-assign, assignment]
        register_module_forward_hook(lambda *_: self._at("forward"))
        register_optimizer_step_pre_hook(lambda *_: self._at("update"))
        register_optimizer_step_post_hook(lambda *_: self._at("behind"))

    def _at(self, moment: str) -> None:
        session = self._session
        if session is None:
            return
        if (moment, session.step) == (self._moment, self._step):
            self._moment = ""
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.sendto(b"now", str(self._say))
        if not self._moment:
            self._stand_still(session)

    def _stand_still(self, session: Session) -> None:
        """Where a snapshot can be taken it is, and this process is killed; in an update it goes on to where one can."""
        end = time.monotonic() + _PATIENCE_S
        course = session._course
        while course is not None and course._guard.is_open and time.monotonic() < end:
            time.sleep(0.002)
