"""Spending: the run ends where its VMs have cost what they may, to the second, with its state staged."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.run.spending import MaxCostReached, Spending
from agent.store.hours import Hours
from tests.agent.clocks import play
from tests.agent.run.machine import NOTICE, RUN, Machine, machine
from tests.agent.store.test_hours import HOUR, SIGN

BOUNDED = RUN.replace("supervision: {", "machine: {hourly_usd: 2}\nsupervision: {max_cost: 10, ")


def spending_of(playing: Machine) -> Spending:
    """An hour old, with another boot of an hour and a half behind it: five dollars are gone."""
    host, now = playing.daemon.host, playing.saver_clock()
    other = replace(SIGN, started=now - 4 * HOUR, until=now - 2.5 * HOUR, ended=True)
    Hours(host.ledger.store).add(other, timeout=10.0)
    return Spending(host, started=now - HOUR, wall=playing.loop().time)


def test_at_the_bound_the_newest_state_is_staged_and_the_attempt_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, run=BOUNDED) as playing:
            spending, began = spending_of(playing), playing.now()
            spending.guard(playing.attempt)
            with pytest.raises(MaxCostReached, match=r"about \$10.00 \(5.0 VM hours in 2 boots\).* is \$10") as caught:
                await playing.attempt.trouble
            assert playing.now() - began == pytest.approx(2.5 * HOUR, abs=2.0)
            assert caught.value.at - NOTICE.at - began == pytest.approx(2.5 * HOUR, abs=0.1)
            assert playing.saver.staged_step == 7
            with pytest.raises(MaxCostReached):
                await spending.ask()

    play(scenario())


@pytest.mark.parametrize("near_its_end", ["a window is open", "its result is being stored"])
def test_an_attempt_that_is_near_its_end_anyway_is_let_be(tmp_path: Path, near_its_end: str) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, run=BOUNDED) as playing:
            attempt = playing.attempt
            if near_its_end == "a window is open":
                attempt.yields = True
            else:
                attempt._completion.task = asyncio.create_task(asyncio.sleep(HOUR))
            await spending_of(playing)._guard(attempt)
            assert not isinstance(attempt.trouble.done() and attempt.trouble.exception(), MaxCostReached)
            assert playing.saver.staged_step == 4

    play(scenario())


def test_without_a_bound_nothing_is_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            spending = spending_of(playing)
            await spending.ask()
            spending.guard(playing.attempt)
            assert spending._others is None

    play(scenario())
