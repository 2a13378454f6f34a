"""Whatever a trainer prints, a notice is heard in its middle, and of its lines none is lost without being counted."""

from __future__ import annotations

import json
import sys

import pytest

from infra.local.fleet import Fleet, agent_command
from tests.promises.world import World

PATIENCE_S = 30.0
LINES = 1_500_000
RUN = """
run_id: flood
workload: {{kind: command, command: [{python}, -c, {program}, "{folder}/model"], checkpoint_dir: "{folder}"}}
checkpoint: {{bucket: "gs://demo/runs", every: "1 h"}}
"""
PROGRAM = f"""
import os, sys, time
open(sys.argv[1], 'w').write('a model')
os.write(1, bytes(9_000_000) + b' a line without an end, until now\\n')
for begin in range(0, {LINES}, 10_000):
    os.write(1, b''.join(b'line %d\\n' % number for number in range(begin, begin + 10_000)))
    time.sleep(0.005)
os.write(1, b''.join(b'\\r%d' % number for number in range(1_000_000)) + b'\\n')
"""


@pytest.mark.slow
def test_a_flood_of_output_delays_no_notice_and_every_line_of_it_is_told_or_counted(world: World) -> None:
    folder = world.folder / "saves"
    folder.mkdir()
    run_file = world.folder / "flood.yaml"
    run_file.write_text(RUN.format(python=sys.executable, program=json.dumps(PROGRAM), folder=folder))
    with Fleet("flood", agent_command(run_file), world.folder, world.storage, boot_delay_s=0.0) as fleet:
        vm = fleet.boot()
        fleet.wait_event("output_dropped", timeout=PATIENCE_S)
        vm.metadata.set("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
        fleet.wait_event("notice", timeout=PATIENCE_S)
        assert fleet.wait_off(PATIENCE_S) == 0
        events = [event.values for event in fleet.events]
    names = [values["event"] for values in events]
    told = [values["message"] for values in events if values["event"] == "trainer_output"]
    numbers = [int(line.removeprefix("line ")) for line in told if line.startswith("line ")]
    dropped = [values for values in events if values["event"] == "output_dropped"]
    assert names.index("notice") < len(names) - 1 - names[::-1].index("trainer_output"), "heard while it printed"
    assert numbers == sorted(set(numbers))
    assert told[-1] == "999999"
    assert sum(values["unread_bytes"] for values in dropped) == 0
    assert len(told) + sum(values["lines"] for values in dropped) == LINES + 2
