"""A VM whose power goes: real firmware, kernel, udev, logind and systemd, our installer's units, a real power button.

One story, told once: a VM is preempted, the next one under its name goes on and is then stopped by its operator. What
is promised about it is looked up in the journals, which came out of the machines as they were written, and in the
bucket. Emulation is slow: from the power button to the power cut are 30 s times what a fixed piece of work
takes longer inside than outside.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.cloud import local_cloud
from infra.local.metadata import MetadataServer
from tests.vm.acpi.image import NoDebian, make_image, why_not
from tests.vm.acpi.machine import Line, Machine

pytestmark = [pytest.mark.slow, pytest.mark.qemu, pytest.mark.timeout(3600)]

SHUTDOWN_S = 30.0  # from ACPI G2 to ACPI G3, for a Spot VM
_BOOT_S = 600.0
_TRAIN_S = 120.0
_HOW_SLOW = Path(__file__).parent / "guest/opt/counter/how_slow.py"


@dataclass
class Life:
    """One VM, from its boot to its end: `window_s` after `pressed_at` the power would have been cut."""

    machine: Machine
    counted_from: int
    counting_at: float
    slower: float
    pressed_at: float = 0.0
    cut: bool = False

    @property
    def window_s(self) -> float:
        return SHUTDOWN_S * self.slower

    def line(self, text: str) -> Line:
        """The first journal line after the button with `text` in it. Raises MachineError if there is none."""
        return self.machine.wait_line(
            repr(text), lambda line: line.at >= self.pressed_at and text in line.text, timeout=0.0
        )

    def shutdown(self) -> Line:
        """systemd's first act of the shutdown that the button asked for."""
        return self.machine.wait_line(
            "shutdown",
            lambda line: (
                line.at >= self.pressed_at
                and line.fields.get("_PID") == "1"
                and line.text.startswith(("Stopping", "Stopped target"))
            ),
            timeout=0.0,
        )

    def last_commit(self) -> Line:
        return [line for line in self.machine.lines if line.event == "committed" and line.at >= self.pressed_at][-1]

    @property
    def committed_s(self) -> float:
        """Seconds from the button to the journal's word, out here, that the state is in the bucket."""
        return self.last_commit().at - self.pressed_at

    @property
    def off_s(self) -> float:
        return (self.machine.off_at or float("inf")) - self.pressed_at

    def summary(self) -> str:
        boot = self.counting_at - self.machine.started
        return (
            f"emulated {self.slower:.1f} times slower, so the power is cut {self.window_s:.0f} s after the button; "
            f"boot to trainer {boot:.1f} s, button to committed {self.committed_s:.1f} s, to off {self.off_s:.1f} s "
            f"({'' if self.off_s < SHUTDOWN_S else 'not '}inside {SHUTDOWN_S:.0f} s as they are, too)"
        )

    def saved(self) -> int:
        """What the trainer had counted to when it last saved."""
        return [int(found[1]) for line in self.machine.lines if (found := re.fullmatch(r"saved (\d+)", line.text))][-1]


@dataclass
class Story:
    preempted: Life
    stopped: Life
    records: list[dict[str, Any]]

    def incident(self, kind: str) -> dict[str, Any]:
        (found,) = [record for record in self.records if record["record"] == "incident" and record["kind"] == kind]
        return found


def start(machine: Machine) -> Life:
    machine.boot()
    counting = machine.wait_line("trainer", lambda line: line.text.startswith("counting from"), timeout=_BOOT_S)
    inside = machine.wait_line("measure", lambda line: line.text.startswith("work took"), timeout=_BOOT_S)
    outside = subprocess.run([sys.executable, str(_HOW_SLOW)], capture_output=True, text=True, check=True, timeout=60)
    slower = max(1.0, float(inside.text.split()[2]) / float(outside.stdout.split()[2]))
    return Life(machine, int(counting.text.split()[-1]), counting.at, slower)


def press_power_button(life: Life) -> None:
    """ACPI G2, and G3 when the time is up."""
    life.pressed_at = life.machine.press_power_button()
    if not life.machine.wait_off(life.window_s):
        life.cut = True
        life.machine.cut_power()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    if reason := why_not():
        pytest.skip(reason)
    try:
        image = make_image()
    except NoDebian as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("acpi")
    with local_cloud("acpi", ["runs/acpi"]) as cloud:
        port = int(cloud.storage.url.rpartition(":")[2])
        lives = []
        for kind in ("preempted", "stopped"):
            with MetadataServer(name="acpi", mint=cloud.mint) as metadata:
                machine = Machine(image, folder / kind, metadata, port)
                try:
                    life = start(machine)
                    time.sleep(2.0)  # it trains
                    if kind == "preempted":
                        metadata.set("instance/preempted", "TRUE")
                    press_power_button(life)
                finally:
                    machine.close()
            lives.append(life)
            print(f"{kind}: {life.summary()}")
        yield Story(lives[0], lives[1], RunRecords(open_store("gs://acpi/runs/acpi")).records())


def test_a_preempted_vm_is_off_before_the_power_is_cut_and_its_state_is_in_the_bucket(story: Story) -> None:
    life = story.preempted
    incident = story.incident("preempted")
    assert not life.cut, f"the power had to be cut after {life.window_s:.0f} s"
    assert (incident["step_committed"], incident["steps_lost"]) == (None, None), "its steps nobody told"
    assert life.last_commit().fields["STEP"]
    assert 0 < life.committed_s < life.off_s < life.window_s


def test_the_next_vm_of_that_name_goes_on_from_what_was_saved(story: Story) -> None:
    assert story.stopped.counted_from == story.preempted.saved() > 0
    assert story.stopped.machine.event("fetched").fields["SOURCE"] == "bucket"


def test_logind_hears_the_button_and_the_agent_hears_logind(story: Story) -> None:
    """Nothing else told this VM: its metadata server went on saying FALSE."""
    life = story.stopped
    pressed = life.line("Power key pressed")
    notice = life.machine.event("notice")
    assert (notice.fields["SOURCE"], notice.fields["DETAIL"]) == ("logind", "PrepareForShutdown")
    assert 0 <= notice.guest_at - pressed.guest_at < 2.0 * life.slower
    assert story.incident("operator_stop")["source"] == "logind"
    assert "metadata" in {line.fields["SOURCE"] for line in story.preempted.machine.lines if line.event == "notice"}


def test_the_agents_inhibitor_holds_the_shutdown_until_the_state_is_safe(story: Story) -> None:
    for life in (story.preempted, story.stopped):
        listed = life.machine.wait_line("inhibitors", lambda line: '"spot-agent"' in line.text, timeout=0.0)
        assert '"shutdown","spot-agent"' in listed.text
        assert '"delay"' in listed.text
        assert life.line("Power key pressed").guest_at < life.last_commit().guest_at < life.shutdown().guest_at
        assert not life.cut


def test_the_ledger_agrees_with_the_journal_that_was_watched_from_outside(story: Story) -> None:
    """The agent's moments, on its own clock, beside journald's stamps of the lines that tell of them."""
    for life, kind in ((story.preempted, "preempted"), (story.stopped, "operator_stop")):
        incident = story.incident(kind)
        noticed, committed = life.machine.event("notice"), life.last_commit()
        told = incident["phases_s"]["committed"]
        assert abs((committed.guest_at - noticed.guest_at) - told) < 0.05 * life.slower
