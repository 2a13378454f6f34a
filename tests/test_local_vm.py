"""A local VM seen from outside: what its journal said, and when it went."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from infra.local.vm import Event, Vm


def test_when_the_agent_is_down_all_that_its_journal_said_has_been_read(tmp_path: Path) -> None:
    told: list[str] = []

    def slowly(event: Event) -> None:
        time.sleep(0.02)
        told.append(event.name)

    agent = [sys.executable, "-c", 'for number in range(10): print(\'{"event": "%d"}\' % number)']
    vm = Vm.start(name="vm", boot=1, disk=tmp_path / "disk", command=agent, env={}, attributes={}, tell=slowly)
    try:
        assert vm.wait_down(20.0)
        assert told == [str(number) for number in range(10)]
    finally:
        vm.close()
