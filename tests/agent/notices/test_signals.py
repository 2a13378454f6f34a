"""SIGTERM and SIGINT are notices, and nothing else happens to the agent."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from agent.notices import Notice, Notices
from agent.notices.signals import signal_notices
from agent.start import hear_early


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_notice_each_time_it_comes(number: signal.Signals) -> None:
    async def scenario() -> None:
        notices = Notices()
        with signal_notices(notices):
            for _ in range(2):
                os.kill(os.getpid(), number)
                notice = await asyncio.wait_for(notices.next(), 10)
                assert (notice.source, notice.cause, notice.detail) == (
                    "sigterm",
                    "operator_stop",
                    number.name,
                )

    asyncio.run(scenario())


def test_the_handlers_of_before_are_back_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:

        async def scenario() -> None:
            with signal_notices(Notices()):
                pass

        asyncio.run(scenario())
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_from_before_the_loop_was_there_is_posted_when_it_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        hear_early()
        os.kill(os.getpid(), signal.SIGTERM)

        async def scenario() -> Notice:
            notices = Notices()
            with signal_notices(notices):
                return await asyncio.wait_for(notices.next(), 5.0)

        notice = asyncio.run(scenario())
        assert (notice.source, notice.cause, notice.detail) == ("sigterm", "operator_stop", "SIGTERM, at the start")
    finally:
        signal.signal(signal.SIGTERM, before)
