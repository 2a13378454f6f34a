"""Hours: what VMs have cost, from the signs of life that they left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.store import open_store
from agent.store.formats import NewerFormatError
from agent.store.hours import UNSEEN_S, Hours, Sign, Spent, reckon

T = 10.0
HOUR = 3600.0
SIGN = Sign("run", "boot-a", "vm-a", "g2-standard-8", "spot", 1, 2.0, 1e9, 1e9 + HOUR)


@pytest.mark.parametrize(
    ("signs", "spent"),
    [
        ([], Spent()),
        ([replace(SIGN, ended=True)], Spent(2.0, 1.0, 1)),
        ([replace(SIGN, ended=True, vms=4)], Spent(8.0, 4.0, 1)),
        ([replace(SIGN, ended=True, hourly_usd=None)], Spent(0.5, 1.0, 1)),
        ([SIGN], Spent(2.0 + 2.0 * UNSEEN_S / HOUR, 1.0 + UNSEEN_S / HOUR, 1, 2.0 * UNSEEN_S / HOUR)),
        # The next boot came half an hour later: the first one was gone by then, whatever it did
        (
            [SIGN, replace(SIGN, claimant="boot-b", started=1e9 + 1.5 * HOUR, until=1e9 + 2.5 * HOUR, ended=True)],
            Spent(5.0, 2.5, 2, 1.0),
        ),
        # One that began before the last sign of the first says nothing of its end
        (
            [SIGN, replace(SIGN, claimant="boot-b", started=1e9 + 0.5 * HOUR, until=1e9 + HOUR, ended=True)],
            Spent(3.0 + 2.0 * UNSEEN_S / HOUR, 1.5 + UNSEEN_S / HOUR, 2, 2.0 * UNSEEN_S / HOUR),
        ),
    ],
)
def test_a_boot_costs_its_hours_and_an_end_that_nobody_saw_is_bounded_from_above(
    signs: list[Sign], spent: Spent
) -> None:
    found = reckon(signs, hourly_usd=0.5)
    assert (found.usd, found.hours, found.unseen_usd) == pytest.approx((spent.usd, spent.hours, spent.unseen_usd))
    assert found.boots == spent.boots


def test_the_newest_sign_of_each_boot_counts_and_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    hours = Hours(open_store(f"file://{tmp_path}"))
    other = replace(SIGN, claimant="boot-b", started=SIGN.started - HOUR, ended=True)
    for sign in (SIGN, replace(SIGN, until=SIGN.until + 600.5), other, replace(SIGN, until=SIGN.until + 600.0)):
        hours.add(sign, timeout=T)
    assert hours.newest(timeout=T) == [other, replace(SIGN, until=SIGN.until + 600.5)]
    assert hours.newest(timeout=T, but="boot-a") == [other]
    newer = replace(SIGN, claimant="boot-c")
    hours._store.create(newer.name, b'{"format": 2}', timeout=T)
    with pytest.raises(NewerFormatError, match="newer version"):
        hours.newest(timeout=T)


def test_what_was_spent_is_told_with_what_is_only_a_bound() -> None:
    assert Spent(52.104, 26.05, 3).describe() == "about $52.10 (26.1 VM hours in 3 boots)"
    told = Spent(5.0, 2.5, 1, 1.0).describe()
    assert told == "about $5.00 (2.5 VM hours in one boot, of it up to $1.00 for VMs whose end nobody saw)"
