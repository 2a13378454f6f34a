"""The link over the socket: what a request came to, and why where it came to nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from spot_training.protocol.channel import Closed
from spot_training.protocol.messages import Declined, Save

from agent.trainer.link import SocketLink


class Trainer:
    """Answers each request with the next of `answers`; then its connection ends, or it is silent for ever."""

    def __init__(self, answers: list[Any], *, silent: bool = False) -> None:
        self.answers, self.silent = answers, silent
        self.asked = asyncio.Event()

    async def send(self, message: object, fds: object = ()) -> None:
        assert isinstance(message, Save)
        self.asked.set()

    async def receive(self) -> tuple[Any, list[int]]:
        await self.asked.wait()
        if self.answers:
            return self.answers.pop(0), []
        if self.silent:
            await asyncio.Event().wait()
        raise Closed


@pytest.mark.parametrize(
    ("answers", "silent", "why"),
    [
        ([Declined(7, "emergency", "behind its update of step 8")], True, "declined: behind its update of step 8"),
        ([], True, "gave no answer in 0.1 s"),
        ([], False, "connection ended before it answered"),
    ],
)
def test_why_a_trainer_gave_no_snapshot_is_told_as_it_was(answers: list[Any], *, silent: bool, why: str) -> None:
    async def scenario() -> None:
        link = SocketLink(cast(Any, Trainer(answers, silent=silent)), cast(Any, None), cast(Any, None), cast(Any, None))
        serving = asyncio.create_task(link.serve())
        assert await link.save("emergency", deadline=None, timeout=0.1) == "none"
        assert why in link.why_none
        serving.cancel()

    asyncio.run(scenario())
