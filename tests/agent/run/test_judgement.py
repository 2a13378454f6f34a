"""What a VM can't prepare another one tries; where it fails there too, the run is at fault."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from agent.program.trouble import PrepareError
from agent.run.judgement import EXIT_GAVE_UP, EXIT_VM_UNFIT, judge
from agent.telemetry.ledger import Ledger
from agent.trainer.losses import open_incident
from tests.agent.run.machine import machine


def test_an_environment_that_two_vms_cannot_make_ends_the_run(tmp_path: Path) -> None:
    async def judged() -> list[int]:
        async with machine(tmp_path) as playing:
            host, error = playing.daemon.host, PrepareError("setup.sh failed")
            statuses = []
            for _ in range(2):
                status, cause = await judge(host, error, replaceable=True)
                statuses.append(status)
                other = Ledger(host.ledger.store, "run", "another", "its boot")
                await other.write(replace(open_incident(host, 1, cause, "agent"), claimant=other.claimant))
            return statuses

    assert asyncio.run(judged()) == [EXIT_VM_UNFIT, EXIT_GAVE_UP]
