"""Waits: the table of every wait on the path that has a limit, and of what watches above it.

Each is shorter than the one it stands under: else a watchdog strikes at what only waits, or a limit is never reached.
Values are those of a run file without changes. The constants stay where they are used; tests/agent/run/test_waits.py
holds this table against them, against systemd's unit, and against the group's patience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wait:
    """`seconds` at most; `at` is where that is written: MODULE:NAME, unit:KEY, run:KEY or group:NAME. `under`: the wait
    or watchdog above it, by its `at`; empty for the outermost."""

    what: str
    seconds: float
    at: str
    under: str = ""


_CALL = "agent.checkpoint.commit:_CALL_TIMEOUT_S"
_DRAIN = "agent.checkpoint.saver:_DRAIN_LIMIT_S"
_FOLDER = "agent.trainer.folder.begin:_FETCH_TIMEOUT_S"
_FETCH = "agent.trainer.launch:_FETCH_TIMEOUT_S"
_FINISH, _HANG, _START, _RESTORE = (
    f"run:supervision.{key}" for key in ("finish_timeout", "hang_timeout", "start_timeout", "restore_timeout")
)
_STOP, _WATCHDOG, _READY = "unit:TimeoutStopSec", "unit:WatchdogSec", "unit:TimeoutStartSec"
_AGENT = "spot_training.link:_AGENT_TIMEOUT_S"
_TELL = "spot_training.protocol.tell:_TIMEOUT_S"
_GROUP = "group:first_step"
_AWAY = "agent.run.patience:_BUCKET_PATIENCE_S"

WAITS = (
    # The window: notice to power cut
    Wait("the last byte is committed", 27.0, "run:machine.shutdown_window", _STOP),
    Wait("logind waits for the agent", 27.0, "unit:InhibitDelayMaxSec", _STOP),
    Wait("the record, after the last byte", 2.0, "agent.run.emergency:RECORD_S", "unit:after the window"),
    Wait("a killed trainer is cleared away", 5.0, "agent.run.emergency:_KILL_WAIT_S", "run:machine.shutdown_window"),
    Wait("the same, outside a window", 5.0, "agent.trainer.process:_KILL_WAIT_S", _WATCHDOG),
    Wait("a hung trainer tells its stacks", 2.0, "agent.trainer.endings:_STACKS_S", _HANG),
    Wait("systemd stops the agent", 30.0, _STOP),
    Wait("of it, what is left after the window", 3.0, "unit:after the window"),
    # The agent's own life
    Wait("the loop feeds systemd's watchdog", 5.0, "agent.vm.systemd:_STATUS_S", _WATCHDOG),
    Wait("systemd hears from the loop", 20.0, _WATCHDOG),
    Wait("a trainer gets a scope of its own", 3.0, "agent.trainer.scope:_DEADLINE_S", _READY),
    Wait("the agent is ready", 30.0, _READY, _AGENT),
    Wait("systemd starts a failed agent again", 60.0, "unit:RestartMaxDelaySec", _AGENT),
    Wait("a trainer looks for its agent", 300.0, _AGENT, _START),
    Wait("one connection to it", 10.0, "spot_training.link:_CONNECT_TIMEOUT_S", _AGENT),
    # The bucket
    Wait("one call", 30.0, _CALL, _DRAIN),
    Wait("one try of one part", 60.0, "agent.checkpoint.drain:_ATTEMPT_TIMEOUT_S", _DRAIN),
    Wait("a milestone is copied", 600.0, "agent.checkpoint.housekeeping:_COPY_TIMEOUT_S", _DRAIN),
    Wait("a call of retention", 30.0, "agent.checkpoint.housekeeping:_CALL_TIMEOUT_S", _DRAIN),
    Wait("a save is on its way", 1800.0, _DRAIN, _FINISH),
    Wait("the trainer waits for room for a save", 1800.0, "spot_training.stager:_ROOM_TIMEOUT_S", _FINISH),
    Wait("a call of the trainer's room", 30.0, "agent.trainer.launch:_CALL_TIMEOUT_S", _FETCH),
    Wait("a call of the daemon's", 30.0, "agent.run.daemon:_CALL_TIMEOUT_S", _AWAY),
    Wait("who else has failed is asked", 30.0, "agent.run.judgement:_CALL_TIMEOUT_S", _AWAY),
    Wait("the fence is asked", 10.0, "agent.trainer.watch:_FENCE_TIMEOUT_S", _HANG),
    Wait("one part is fetched", 120.0, "agent.checkpoint.restore:_PART_TIMEOUT_S", _FETCH),
    Wait("a checkpoint is fetched", 900.0, _FETCH, "spot_training.link:_WELCOME_TIMEOUT_S"),
    Wait("the trainer waits for its state", 1800.0, "spot_training.link:_WELCOME_TIMEOUT_S", _START),
    Wait("a bucket that is away, or a grant that spreads", 900.0, _AWAY, _GROUP),
    Wait("a call about hours", 30.0, "agent.run.spending:_CALL_TIMEOUT_S", _AWAY),
    Wait("trackers are told the run's last steps", 30.0, "agent.run.trackers:_LAST_TIMEOUT_S", _GROUP),
    Wait("a call of a rollback", 30.0, "agent.run.rollback:_CALL_TIMEOUT_S", _AWAY),
    Wait("metrics lines from before are read", 30.0, "agent.trainer.spikes:_CALL_TIMEOUT_S", _FETCH),
    Wait("the last sign of life", 1.0, "agent.run.spending:_LAST_SIGN_TIMEOUT_S", "agent.run.emergency:RECORD_S"),
    Wait("at max_cost, the trainer stages", 60.0, "agent.run.spending:_STAGE_TIMEOUT_S", _HANG),
    Wait("at max_cost, what is staged is committed", 600.0, "agent.run.spending:_COMMIT_TIMEOUT_S", _DRAIN),
    # The border between two machines' stages
    Wait("a call about the border", 30.0, "agent.run.border:_CALL_TIMEOUT_S", _AWAY),
    Wait("a call of going back", 30.0, "agent.run.rollback:_CALL_TIMEOUT_S", _AWAY),
    Wait("what a metric was before is asked", 30.0, "agent.trainer.spikes:_CALL_TIMEOUT_S", _AWAY),
    Wait("a border's state, staged already, is committed", 600.0, "agent.run.border:_COMMIT_TIMEOUT_S", _DRAIN),
    Wait("the next stages' group is started", 900.0, "agent.run.border:_GROUP_PATIENCE_S", _GROUP),
    Wait("stages that have not begun are waited for", 600.0, "agent.run.border:_BORDER_PATIENCE_S", _GROUP),
    # The program
    Wait("preparing: code, environment, setup", 600.0, "run:supervision.prepare_timeout", _GROUP),
    Wait("the code is fetched", 300.0, "agent.program.code:_FETCH_TIMEOUT_S", "run:supervision.prepare_timeout"),
    Wait("a part of an environment", 60.0, "agent.program.archive:_PART_TIMEOUT_S", "run:supervision.prepare_timeout"),
    Wait("an environment is packed, beside the training", 1800.0, "agent.program.archive:_PACK_TIMEOUT_S"),
    # The trainer's phases
    Wait("a busy main thread is heard of", 5.0, "spot_training.beats:BEAT_S", _HANG),
    Wait("a periodic save is answered", 60.0, "agent.trainer.saves:_PERIODIC_TIMEOUT_S", _HANG),
    Wait("a program that says it has saved waits", 60.0, "agent.trainer.folder.link:_PERIODIC_TIMEOUT_S", _TELL),
    Wait("the same, on its own side", 120.0, _TELL, _HANG),
    Wait("a folder that was written to is still again", 60.0, "agent.trainer.folder.link:_AGAIN_S", _DRAIN),
    Wait("one part of a folder is fetched", 120.0, "agent.trainer.folder.put_back:_PART_TIMEOUT_S", _FOLDER),
    Wait("a folder is brought back", 900.0, _FOLDER, _GROUP),
    Wait("a call while a folder is brought back", 30.0, "agent.trainer.folder.begin:_CALL_TIMEOUT_S", _FOLDER),
    Wait("a step, in training", 600.0, _HANG, _GROUP),
    Wait("starting: importing, tokenising, building", 3600.0, _START, _GROUP),
    Wait("restoring", 1800.0, _RESTORE, _GROUP),
    Wait("a folder's last save", 600.0, "agent.trainer.own_end:_FINAL_SAVE_S", _FINISH),
    Wait("a program's last step is committed", 600.0, "agent.trainer.own_end:_COMMIT_TIMEOUT_S", _FINISH),
    Wait("one try to store the result", 900.0, "agent.trainer.result:_TRY_S", _FINISH),
    Wait("the trainer waits for its result to be stored", 1800.0, "spot_training.saves:_FINAL_TIMEOUT_S", _FINISH),
    Wait("finishing", 3600.0, _FINISH),
    # The machine and the group
    Wait("one try to resize the group", 10.0, "agent.vm.group:_ATTEMPT_S", "agent.vm.group:_DEADLINE_S"),
    Wait("the group is resized", 60.0, "agent.vm.group:_DEADLINE_S", _GROUP),
    Wait("the group waits for a first step", 6000.0, _GROUP),
)


def too_long(waits: tuple[Wait, ...] = WAITS, seconds: Mapping[str, float] | None = None) -> list[str]:
    """The waits that are not shorter than what watches above them, in words. `seconds` by `at`, instead of its own."""
    known = {wait.at: wait.seconds for wait in waits} | dict(seconds or {})
    return [
        f"{wait.what} ({wait.at}): {known[wait.at]:g} s, and {wait.under} has {known[wait.under]:g} s"
        for wait in waits
        if wait.under and not known[wait.at] < known[wait.under]
    ]
