"""Restarts: a rule for each cause."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest

from agent.config.causes import FAILURES, Cause
from agent.trainer.restarts import Decision, Restarts

ENDS: tuple[Cause, ...] = ("complete", "preempted", "operator_stop", "superseded")
NO_TRAINERS_END = {"maintenance", "drill", "vm_unfit", "max_cost", "gave_up", "stage_not_begun"}
THE_DAEMONS = {"stage_complete", "spike"}
"""No failures, and what follows is more than a restart."""


def test_every_cause_has_a_rule() -> None:
    assert {*FAILURES, *ENDS} == set(get_args(Cause)) - NO_TRAINERS_END - THE_DAEMONS


@pytest.mark.parametrize("cause", FAILURES)
def test_a_trainer_that_failed_is_started_again(cause: Cause) -> None:
    assert Restarts(limit=3).decide(cause, step=5) == Decision(restart=True, pause_s=1.0)


@pytest.mark.parametrize("cause", ENDS)
def test_what_is_no_failure_ends_this_vms_work_and_says_why(cause: Cause) -> None:
    assert Restarts(limit=3).decide(cause, step=5) == Decision(restart=False, why=cause)


@pytest.mark.parametrize("cause", ENDS)
def test_what_is_no_failure_is_never_counted_as_one(cause: Cause) -> None:
    restarts = Restarts(limit=2)
    restarts.decide("crash", step=5)
    for step in (3, 5, 5, 5):
        restarts.decide(cause, step=step)
    assert restarts.failures == 1
    assert not restarts.decide("crash", step=5).restart, "nor does it count as progress"


@pytest.mark.parametrize("cause", FAILURES)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_failures_in_a_row_without_progress_stop_at_the_limit_and_say_so(cause: Cause, limit: int) -> None:
    restarts = Restarts(limit=limit)
    for _ in range(limit - 1):
        assert restarts.decide(cause, step=7).restart
    last = restarts.decide(cause, step=7)
    assert not last.restart
    assert last.why == f"{limit} times {cause} in a row without getting past step 7"


def test_failures_of_different_kinds_are_one_row() -> None:
    restarts = Restarts(limit=3)
    assert [restarts.decide(cause, step=7).restart for cause in FAILURES] == [True, True, False]


def test_a_row_begins_anew_with_every_step_that_was_never_reached_before() -> None:
    restarts = Restarts(limit=2)
    assert all(restarts.decide("crash", step=step).restart for step in range(100))


def test_steps_that_were_done_before_are_no_progress() -> None:
    restarts = Restarts(limit=4)
    assert [restarts.decide("crash", step=step).restart for step in (9, 4, 8, 9)] == [True, True, True, False]


def test_a_trainer_that_never_does_a_step_stops_too() -> None:
    restarts = Restarts(limit=3)
    assert [restarts.decide("crash", step=0).restart for _ in range(3)] == [True, True, False]


def test_pauses_grow_to_a_minute_and_begin_anew_with_progress() -> None:
    restarts = Restarts(limit=20)
    pauses = [restarts.decide("crash", step=1).pause_s for _ in range(12)]
    assert pauses[0] == 1.0
    assert all(later > earlier or later == 60.0 for earlier, later in pairwise(pauses))
    assert pauses[-1] == 60.0
    assert restarts.decide("crash", step=2).pause_s == 1.0


def test_a_checkpoint_that_can_not_be_trained_from_is_passed_over_before_the_run_is_given_up() -> None:
    restarts = Restarts(limit=2)
    decisions = [restarts.decide("crash", step=8, restored="rolling/8") for _ in range(2)]
    assert [decision.pass_over for decision in decisions] == ["", "rolling/8"]
    assert restarts.passed_over == {"rolling/8"}
    assert all(restarts.decide("crash", step=4, restored="rolling/4").restart for _ in range(2)), "the next older one"
    assert restarts.passed_over == {"rolling/8", "rolling/4"}
    last = [restarts.decide("crash", step=None) for _ in range(2)]
    assert [(decision.restart, decision.failed) for decision in last] == [(True, False), (False, True)]


def test_a_trainer_that_fails_before_it_has_its_state_says_nothing_about_the_checkpoint() -> None:
    restarts = Restarts(limit=2)
    assert restarts.decide("crash", step=None, restored="").restart
    last = restarts.decide("crash", step=None, restored="rolling/8")
    assert (last.restart, last.pass_over, last.failed) == (False, "", True)
