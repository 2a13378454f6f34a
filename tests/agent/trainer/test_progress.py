"""How long ago a trainer passed a step: what was lost is counted from there."""

from __future__ import annotations

from agent.trainer.progress import Progress


def test_a_step_was_passed_when_it_was_told_and_one_that_nobody_saw_is_not_known() -> None:
    progress = Progress()
    for step in (5, 6, 7):
        progress.note(step, 10.0 * step)
    assert (progress.step, progress.passed(6), progress.passed(4)) == (7, 60.0, None)


def test_who_has_told_nothing_yet_loses_since_its_start_and_its_steps_are_not_known() -> None:
    progress = Progress()
    progress.begin(3, 100.0)
    assert (progress.step, progress.passed(3)) == (None, 100.0)
    progress.note(4, 50.0)  # a file may be older than the program that has it
    assert progress.passed(4) == 100.0
