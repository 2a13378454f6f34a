"""Every way in with every kind, cadence and thing that happens: pairs of them, each held to the same invariants.

A slice of them by default; SHARD=i/n of all with `make scenarios`.
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.local.storage.control import StorageControl
from tests.promises import scenarios
from tests.promises.scenarios import Scenario

pytest.importorskip("allpairspy")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KNOWN: set[str] = set()
"""Scenarios that did not hold when they were first played: this must shrink to nothing."""


def chosen() -> list[Scenario]:
    """`SHARD=i/n`, or one in sixteen."""
    number, _, of = os.environ.get("SHARD", "1/16").partition("/")
    return scenarios.combinations()[int(number) - 1 :: int(of)]


@pytest.mark.parametrize("scenario", chosen(), ids=str)
def test_whatever_the_way_in_what_was_committed_is_kept_and_what_is_told_is_true(
    shared_storage: StorageControl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Scenario,
    request: pytest.FixtureRequest,
) -> None:
    if str(scenario) in KNOWN:
        request.applymarker(pytest.mark.xfail(strict=True, reason="seen to fail: see KNOWN"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", shared_storage.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    name = f"scenario-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        stack.callback(shared_storage.clear)
        on = stack.enter_context(
            scenarios.stage(shared_storage, tmp_path, kind=scenario.kind, every=scenario.every, name=name)
        )
        if scenario.what == "full disk":
            if os.geteuid():
                pytest.skip("a small file system of its own needs root")
            stack.enter_context(scenarios.small_disk(on))
        scenarios.play(on, scenario)
