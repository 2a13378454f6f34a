"""What a rehearsal makes of its runs' records: first difference, likeliest cause, where to strike, how to tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.operate.rehearse.plan import CHOSEN, plan_strikes
from infra.operate.rehearse.records import Boundary, Life, Loop, Run, Strike, plan_of, read_lives, tidy
from infra.operate.rehearse.rehearsal import STATUS, Verdict, judge, judge_twins
from infra.operate.rehearse.report import as_json, show

FINDING = {
    "name": "best",
    "line": 9,
    "what": "`best` carries over and is not tracked: keep it in a dict",
    "surely": True,
}


def life(number: int, first: int, last: int, **changes: Any) -> Life:
    """A life from boundary `first` to `last`. `changes`: NAME=(step, text) is otherwise from that step on."""
    found = Life(number, loop=Loop("train.py", 5, {"best": 9, "x": 6, "seen": 2}, ()))
    for step in range(first, last + 1):
        tracked = {"model.weight": f"w{step}", "rng.torch.cpu": f"r{step}", "rng.python": "p"}
        around = {"best": f"{9 - step}", "x": f"x{step}", "seconds": "0"}
        for name, (since, text) in changes.items():
            for values in (tracked, around):
                key = name.replace("__", ".")
                if key in values and step >= since:
                    values[key] = text.format(step=step)
        found.boundaries[step] = Boundary(step, tracked, around, ["torch at train.py:6"])
    return found


def lines(last: int, **values: Any) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 1 / (step + 1), "time": "now", **values} for step in range(last)]


def undisturbed(**changes: Any) -> Run:
    return Run([life(1, 0, 10, **changes)], lines(10))


def struck(second: Life, *, metrics: list[dict[str, Any]] | None = None, failure: str = "") -> Run:
    first = life(1, 0, 5)
    first.struck = Strike(1, "forward", 5, "notice")
    first.committed = first.restored = 0
    return Run([first, second], metrics if metrics is not None else lines(10), failure)


def back(first: int = 5, **changes: Any) -> Life:
    second = life(2, first, 10, **changes)
    second.committed = second.restored = 5
    return second


def test_what_comes_back_as_it_was_is_exact() -> None:
    verdict = judge(undisturbed(), undisturbed(), struck(back()))
    assert (verdict.outcome, STATUS[verdict.outcome], verdict.causes) == ("exact", 0, [])


def test_the_first_difference_in_what_is_tracked_is_told_with_the_variable_that_did_not_come_back() -> None:
    second = back(model__weight=(7, "other{step}"), best=(5, "9.0"))
    second.loop = Loop("train.py", 5, {"best": 9}, [FINDING])
    verdict = judge(undisturbed(), undisturbed(), struck(second))
    assert [(each.kind, each.life, each.step, each.name) for each in verdict.differences] == [
        ("state", 2, 7, "model.weight")
    ]
    assert verdict.causes[0].startswith("`best` (train.py:9) was 4 at step 5, and is 9.0 after the resume")
    assert verdict.causes[0].endswith("keep it in a dict")


def test_a_life_that_is_cut_between_two_boundaries_of_a_step_is_held_against_the_first_of_them() -> None:
    once, again, second, third = undisturbed(), undisturbed(), back(), life(3, 7, 10)
    last = once.lives[0].boundaries[7]
    first = replace(last, tracked={**last.tracked, "pending": "True"})
    for run in (once, again):
        run.lives[0].boundaries[7] = replace(last, earlier=first)
    second.boundaries = {5: second.boundaries[5], 6: second.boundaries[6], 7: first}
    third.committed = third.restored = 7
    run = struck(second)
    assert judge(once, again, Run([*run.lives, third], run.metrics)).outcome == "exact"
    second.boundaries[7] = replace(first, tracked={**first.tracked, "pending": "None"})
    assert judge(once, again, Run([*run.lives, third], run.metrics)).outcome == "differs"


def test_what_did_not_come_back_is_a_difference_though_training_went_on_as_if_it_were() -> None:
    verdict = judge(undisturbed(), undisturbed(), struck(back(best=(5, "9.0"))))
    assert (verdict.outcome, [each.name for each in verdict.differences]) == ("differs", ["best"])
    assert judge(undisturbed(), undisturbed(), struck(back(best=(5, "9.0"))), ["best"]).outcome == "exact"


def test_what_is_as_it_was_one_step_later_was_only_left_from_the_step_before() -> None:
    second = back()
    second.boundaries[5] = Boundary(5, second.boundaries[5].tracked, {"best": "4", "x": "none yet"}, [])
    assert judge(undisturbed(), undisturbed(), struck(second)).outcome == "exact"


def test_what_is_as_it_was_one_step_later_is_a_difference_all_the_same_where_the_loop_reads_it_first() -> None:
    second = back()
    second.loop = Loop("train.py", 5, {"best": 9}, [FINDING])
    second.boundaries[5] = Boundary(5, second.boundaries[5].tracked, {"best": "9.0", "x": "x5"}, [])
    assert [each.name for each in judge(undisturbed(), undisturbed(), struck(second)).differences] == ["best"]


def test_what_differs_between_undisturbed_runs_too_is_not_compared() -> None:
    one, other = undisturbed(seconds=(0, "1.5")), undisturbed(seconds=(0, "1.7"))
    for number, run in enumerate((one, other)):
        for line in run.metrics:
            line["tokens_per_s"] = number  # type: ignore[index]
    assert judge(one, other, struck(back(seconds=(5, "9")))).outcome == "exact"


def test_a_generator_that_nobody_draws_from_need_not_be_seeded() -> None:
    one, other = undisturbed(rng__python=(0, "here")), undisturbed(rng__python=(0, "there"))
    assert judge_twins(one, other) is None
    assert judge(one, other, struck(back())).outcome == "exact"


def test_a_script_that_is_not_the_same_twice_is_told_what_to_set() -> None:
    verdict = judge_twins(undisturbed(), undisturbed(rng__torch__cpu=(0, "other"), model__weight=(0, "other")))
    assert verdict is not None
    assert (verdict.outcome, STATUS[verdict.outcome]) == ("unsteady", 1)
    assert "torch.manual_seed" in verdict.causes[0]
    verdict = judge_twins(undisturbed(), undisturbed(model__weight=(3, "other"), x=(3, "other")))
    assert verdict is not None
    assert "`x` (train.py:6)" in verdict.causes[0]
    assert "use_deterministic_algorithms" in verdict.causes[-1]


def test_lines_that_drew_random_numbers_in_one_run_only_are_named() -> None:
    second = back(rng__torch__cpu=(7, "other"))
    before = second.boundaries[7]
    second.boundaries[7] = Boundary(7, before.tracked, before.around, [*before.draws, "torch at train.py:8"])
    verdict = judge(undisturbed(), undisturbed(), struck(second))
    assert (
        "random numbers were drawn in the resumed one and not in the undisturbed run: torch at train.py:8"
        in verdict.causes
    )


@pytest.mark.parametrize(("first", "committed"), [(0, 5), (3, 5), (6, 5)])
def test_a_run_that_begins_anew_is_no_exact_one_though_all_its_numbers_are(first: int, committed: int) -> None:
    second = back(first)
    second.committed = second.restored = committed
    verdict = judge(undisturbed(), undisturbed(), struck(second))
    assert [(each.kind, each.wanted, each.found) for each in verdict.differences] == [("way", "5", str(first))]


def test_a_notice_that_saved_nothing_is_told_though_all_is_exact() -> None:
    second = back(3)
    second.committed = second.restored = 3
    verdict = judge(undisturbed(), undisturbed(), struck(second))
    assert verdict.outcome == "exact"
    assert "forward of step 5 saved nothing newer than step 3" in verdict.notes[0]


def test_other_metrics_are_a_difference_though_the_state_is_the_same() -> None:
    verdict = judge(undisturbed(), undisturbed(), struck(back(), metrics=lines(10, smooth=3)))
    assert {(each.kind, each.name) for each in verdict.differences} == {("metrics", "smooth")}


def test_a_run_that_could_not_go_on_says_so_with_its_last_words() -> None:
    verdict = judge(undisturbed(), undisturbed(), struck(back(), failure="StateError: no"))
    assert (verdict.outcome, verdict.differences[0].found) == ("differs", "StateError: no")


def test_each_moment_that_the_script_has_is_struck_in_pairs_and_more_are_drawn_by_seed() -> None:
    moments = [
        (moment, step) for step in range(24) for moment in ("forward", "backward", "update", "behind", "boundary")
    ]
    moments += [("evaluating", step) for step in (0, 10, 20)]
    strikes = plan_strikes(moments, steps=24, drawn=2, seed=1)
    assert {(strike.moment, strike.how) for strike in strikes} >= set(CHOSEN)
    assert [strike.life for strike in strikes] == list(range(1, len(CHOSEN) + 3))
    assert [strike.step for strike in strikes] == sorted(strike.step for strike in strikes)
    assert strikes[1].step == strikes[0].step + 1
    assert all(2 <= strike.step < 22 for strike in strikes)
    assert all(strike.step in (10, 20) for strike in strikes if strike.moment == "evaluating")
    assert strikes == plan_strikes(moments, steps=24, drawn=2, seed=1)


def test_a_script_without_a_moment_is_not_struck_in_it() -> None:
    assert {strike.moment for strike in plan_strikes([("boundary", 3)], steps=12, drawn=3, seed=0)} == {"boundary"}
    assert plan_strikes([], steps=12, drawn=3, seed=0) == []


def test_records_are_read_up_to_the_line_that_the_cut_left_unfinished(tmp_path: Path) -> None:
    (tmp_path / "life-1.jsonl").write_text(
        json.dumps({"what": "boundary", "step": 3, "tensors": {"w": "1"}, "values": {"rng['python'][0]": "3",
                    "rng['python'][1][0]": "4", "tracked['data']['noted']['at']": "5"}, "around": {}, "draws": []})
        + "\n" + json.dumps({"what": "struck", "moment": "update", "step": 3, "how": "cut"}) + "\n" + '{"what": "bou'
    )  # fmt: skip
    (found,) = read_lives(tmp_path)
    assert found.struck == Strike(1, "update", 3, "cut")
    assert set(found.boundaries[3].tracked) == {"w", "rng.python", "data['at']"}
    assert json.loads(plan_of([found.struck], end=9))["strikes"][0]["how"] == "cut"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tracked['data']['noted']['at']", "data['at']"),
        ("tracked['optimizer']['live'][0]", "optimizer[0]"),
        ("tracked['data']['kind']", "data['kind']"),
        ("step", "step"),
    ],
)
def test_a_value_has_the_name_that_its_user_gave_it(path: str, name: str) -> None:
    assert tidy(path) == name


def test_the_report_names_the_cause_first_and_the_json_holds_all(tmp_path: Path) -> None:
    verdict = judge(undisturbed(), undisturbed(), struck(back(best=(5, "9.0"))))
    console = Console(record=True, width=200, file=(tmp_path / "told").open("w"))
    show(console, verdict, tmp_path)
    text = console.export_text()
    assert "likeliest cause: `best` (train.py:9)" in text
    assert "forward, step 5" in text
    values = json.loads(as_json(verdict))
    assert (values["exact"], values["lives"][1]["began_at_step"]) == (False, 5)
    assert json.loads(as_json(Verdict("failed", why="no session")))["why"] == "no session"
