from __future__ import annotations

from infra.local.group import Policy, Template
from infra.local.replay import Replay, SkippingClock
from infra.local.script import Happening
from tests.local_group.conftest import World

DAY = 86400.0
POLICY = Policy(check_every_s=0.05)


class Nobody:
    """Nothing but the group is struck here."""

    def crash_trainer(self, index: int) -> bool:
        raise AssertionError(index)

    def lose_bucket(self, seconds: float) -> None:
        self.lost = seconds


def test_calm_time_is_skipped_and_a_window_never(world: World) -> None:
    """One turn each tenth of a real second, at a day a second."""
    clock = SkippingClock(real=lambda: world.now)
    controller = world.make(template=Template(notice_s=120.0), policy=POLICY, clock=clock)
    replay = Replay(controller, [Happening(at=DAY, do="preempt")], clock, Nobody(), lambda: False, speed=DAY)

    def pass_real(seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            since = clock()
            world.now += 0.1
            replay.turn(since=since)

    pass_real(1.3)
    assert [round(played.at) for played in replay.played] == [DAY]
    vm = world.vms[0]
    pass_real(117)
    assert vm.is_running()
    pass_real(4)
    assert not vm.is_running()


def test_no_skip_leads_past_an_event(world: World) -> None:
    clock = SkippingClock(real=lambda: world.now)
    controller = world.make(policy=POLICY, clock=clock)
    script = [Happening(at=at, do="stock_out", lasting=0.0) for at in (1000.0, 1001.0, 5000.0)]
    replay = Replay(controller, script, clock, Nobody(), lambda: False, speed=1e6)
    for _ in range(10):
        since = clock()
        world.now += 0.1
        replay.turn(since=since)
    assert [played.at - played.event.at < 0.2 for played in replay.played] == [True, True, True]


def test_while_the_bucket_is_away_time_is_real(world: World) -> None:
    clock = SkippingClock(real=lambda: world.now)
    controller = world.make(policy=POLICY, clock=clock)
    nobody = Nobody()
    replay = Replay(
        controller, [Happening(at=0.0, do="bucket_away", lasting=3.0)], clock, nobody, lambda: False, speed=1e6
    )
    for _ in range(29):
        since = clock()
        world.now += 0.1
        replay.turn(since=since)
    assert (nobody.lost, clock.skipped) == (3.0, 0.0)
