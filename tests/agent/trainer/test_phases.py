"""Phases: each has a limit of its own, and one that began before it was found has no more time than any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.clocks import play
from tests.agent.run.machine import machine


def test_training_is_judged_by_its_last_beat_and_every_other_phase_as_a_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            phases = playing.attempt.phases
            loop = playing.loop()
            loop.now += 599.0
            phases.beat()
            loop.now += 2.0
            assert not phases.over()
            phases.enter("evaluating")
            for _ in range(7):
                loop.now += 599.0
                phases.beat()
            assert phases.over(), "beats do not make an evaluation shorter"

    play(scenario())


@pytest.mark.parametrize(("age_s", "left_s"), [(60.0, 3540.0), (3400.0, 300.0), (86400.0, 300.0)])
def test_a_start_that_an_agent_finds_half_way_is_bounded_from_the_programs_own_start(
    tmp_path: Path, age_s: float, left_s: float
) -> None:
    """A trainer that was stopped before it connected again would have had an hour more after each agent's start."""

    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            phases = playing.attempt.phases
            phases.enter("starting")
            phases.began(age_s, spare_s=300.0)
            playing.loop().now += left_s - 1.0
            assert not phases.over()
            playing.loop().now += 2.0
            assert phases.over()

    play(scenario())
