"""What the stager promises: a boundary whole in an arena, room for an emergency, and a clear word otherwise."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import load
from spot_training import stager as stager_module
from spot_training.guard import Guard
from spot_training.protocol.arena import Arena, ArenaError
from spot_training.protocol.messages import Arenas, Declined, SaveReason, Staged, Staging
from spot_training.stager import Stager
from spot_training.state import StateError

from tests.spot_training.conftest import Run, copy_of, iterate

PATIENCE_S = 20.0
GLANCE_S = 0.02


@dataclass
class Trainer:
    """A run with its guard and stager; `sent` is what the agent would have got."""

    run: Run = field(default_factory=Run)
    sent: list[Any] = field(default_factory=list)
    on_send: Callable[[Any], None] = lambda message: None
    beats: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.guard = Guard(self.run.state.note(0))
        self.stager = Stager(self.run.state, self.guard, self._send, self.beats.set)

    def _send(self, message: Any, fds: list[int]) -> None:
        self.on_send(message)
        self.sent.append(message)

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.run.forward()
            iterate(self.guard, self.run.state, self.run.update)

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def save(self, reason: SaveReason = "cadence") -> Staged | None:
        """Stage now; what was staged, or None."""
        return self.of(Staged)[-1] if self.stager.stage(reason, deadline=time.monotonic() + PATIENCE_S) else None

    def commit(self, staged: Staged) -> None:
        self.stager.free(staged.arena, staged.step)

    def bytes_of(self, staged: Staged) -> bytes:
        return bytes(self.stager.held[staged.arena].arena.view[: staged.size])

    def tensors_of(self, staged: Staged) -> dict[str, Any]:
        return {name: copy_of(tensor) for name, tensor in load(self.bytes_of(staged)).items()}

    def expected(self) -> dict[str, Any]:
        return {name: copy_of(t) for name, t in self.run.state.snapshot(self.guard.boundary).tensors.items()}


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    trainer = Trainer()
    yield trainer
    for held in trainer.stager.held:
        held.views = {}
        held.arena.close()


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def memory_for(monkeypatch: pytest.MonkeyPatch, arenas: int) -> None:
    """Only so many arenas fit, from now on."""
    left = iter([1 << 40] * arenas)
    monkeypatch.setattr("spot_training.protocol.arena.available_memory", lambda: next(left, 0))


def test_a_snapshot_holds_the_boundary_whole_in_the_middle_of_a_step(trainer: Trainer) -> None:
    trainer.train(3)
    trainer.run.forward()
    staged = trainer.save("emergency")
    assert staged
    assert (staged.step, staged.reason) == (3, "emergency")
    assert trainer.tensors_of(staged) == trainer.expected()
    assert staged.state == trainer.run.state.snapshot(trainer.guard.boundary).values
    assert json.loads(json.dumps(staged.state)) == staged.state


def test_the_agent_hears_that_an_arena_is_gone_before_its_first_byte_changes(trainer: Trainer) -> None:
    """A trainer killed in the middle of a copy must not leave an arena that passes for the snapshot before."""
    trainer.train()
    assert trainer.save()
    arenas = [bytes(held.arena.view) for held in trainer.stager.held]
    for staged in trainer.of(Staged):
        trainer.commit(staged)
    trainer.train()
    seen: list[int] = []

    def look(message: Any) -> None:
        if not seen:
            assert isinstance(message, Staging)
            assert (message.step, message.watermark) == (2, 0)
            assert [bytes(held.arena.view) for held in trainer.stager.held] == arenas
            seen.append(message.arena)

    trainer.on_send = look
    staged = trainer.save()
    assert staged
    assert seen == [staged.arena]


def test_saves_take_the_arenas_in_turn_so_that_the_newest_snapshot_is_never_overwritten(trainer: Trainer) -> None:
    held: dict[int, int] = {}
    for _ in range(5):
        trainer.train()
        staged = trainer.save()
        assert staged
        assert not held or staged.arena != max(held, key=lambda index: held[index])
        held[staged.arena] = staged.step
        trainer.commit(staged)


def test_bytes_below_each_watermark_are_final(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stager_module, "_WATERMARK_STEP", 256)
    trainer.train()
    found: list[tuple[int, bytes]] = []

    def look(message: Any) -> None:
        if isinstance(message, Staging):
            arena = trainer.stager.held[message.arena].arena
            found.append((message.watermark, bytes(arena.view[: message.watermark])))

    trainer.on_send = look
    staged = trainer.save()
    assert staged
    whole = trainer.bytes_of(staged)
    marks = [mark for mark, _ in found]
    assert len(marks) > 5
    assert marks == sorted(set(marks))
    assert all(seen == whole[:mark] for mark, seen in found)


def test_a_periodic_save_leaves_an_arena_for_an_emergency(trainer: Trainer) -> None:
    trainer.train()
    first = trainer.save("cadence")
    trainer.train()
    assert trainer.save("cadence") is None
    declined = trainer.of(Declined)[-1]
    assert (declined.step, declined.reason, declined.staged) == (2, "cadence", False)
    assert "still on its way" in declined.why
    emergency = trainer.save("emergency")
    assert first
    assert emergency
    assert emergency.arena != first.arena
    assert trainer.tensors_of(emergency) == trainer.expected()


@pytest.mark.parametrize("reason", ["emergency", "milestone", "final"])
def test_a_save_that_must_be_waits_for_an_arena_and_says_that_it_is_alive(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, reason: SaveReason
) -> None:
    monkeypatch.setattr(stager_module, "BEAT_S", 0.01)
    trainer.train()
    first = trainer.save("cadence")
    trainer.train()
    assert trainer.save("emergency")
    trainer.train()
    done = in_background(lambda: trainer.save(reason))
    assert trainer.beats.wait(PATIENCE_S)
    assert trainer.of(Staged)[-1].step == 2
    assert first
    trainer.commit(first)
    done.join(PATIENCE_S)
    staged = trainer.of(Staged)[-1]
    assert (staged.step, staged.reason, staged.arena) == (3, reason, first.arena)
    assert trainer.tensors_of(staged) == trainer.expected()


def test_an_emergency_without_room_is_declined_at_its_deadline(trainer: Trainer) -> None:
    trainer.train()
    assert trainer.save("cadence")
    trainer.train()
    assert trainer.save("emergency")
    trainer.train()
    assert not trainer.stager.stage("emergency", deadline=time.monotonic())
    assert "still on its way" in trainer.of(Declined)[-1].why
    assert trainer.stager.error is None


def test_a_boundary_that_is_staged_already_is_said_to_be_so_at_once(trainer: Trainer) -> None:
    trainer.train()
    assert trainer.save("cadence")
    trainer.train()
    assert trainer.save("emergency")  # now there is no room, and none is needed
    assert not trainer.stager.stage("final")
    assert trainer.of(Declined) == [Declined(2, "final", "step 2 is staged already", staged=True)]


def test_where_memory_is_for_one_arena_that_one_serves_and_the_rest_waits(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory_for(monkeypatch, 1)
    trainer.train()
    first = trainer.save("cadence")
    assert first
    assert len(trainer.stager.held) == 1
    assert "one arena instead of two" in caplog.text
    trainer.train()
    assert trainer.save("cadence") is None
    trainer.commit(first)
    second = trainer.save("emergency")
    assert second
    assert trainer.tensors_of(second) == trainer.expected()


def test_where_memory_is_for_no_arena_the_save_is_declined_and_the_loop_hears_why(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(monkeypatch, 0)
    trainer.train()
    assert trainer.save() is None
    assert isinstance(trainer.stager.error, ArenaError)
    assert "use a machine with more memory" in str(trainer.stager.error)
    assert str(trainer.stager.error) == trainer.of(Declined)[-1].why
    assert trainer.of(Staging) == []


def test_a_tensor_that_can_not_be_saved_is_named_to_the_loop_and_the_stager_lives_on(trainer: Trainer) -> None:
    trainer.train()
    state = trainer.run.optimizer.state[trainer.run.model.out.weight]
    state["sparse"] = torch.zeros(2, 2).to_sparse()
    trainer.stager.prepare()
    assert isinstance(trainer.stager.error, StateError)
    trainer.stager.error = None
    assert trainer.save() is None
    assert isinstance(trainer.stager.error, StateError)
    assert "optimizer.model.out.weight.sparse" in trainer.of(Declined)[-1].why


def test_arenas_are_planned_once_and_again_when_the_state_has_grown(trainer: Trainer) -> None:
    trainer.stager.prepare()  # before the optimizer has any state
    assert [(message.keep, message.fds) for message in trainer.of(Arenas)] == [(0, 2)]
    trainer.train()
    staged = trainer.save()
    assert [(message.keep, message.fds) for message in trainer.of(Arenas)] == [(0, 2), (0, 2)]
    assert staged
    assert trainer.tensors_of(staged) == trainer.expected()
    trainer.commit(staged)
    trainer.train()
    assert trainer.save()
    assert len(trainer.of(Arenas)) == 2


@pytest.mark.parametrize("adopted", [1, 2])
def test_arenas_that_the_agent_kept_serve_again(trainer: Trainer, adopted: int) -> None:
    trainer.train()
    size = trainer.save()
    assert size
    heir = Trainer()
    heir.train()
    kept = [Arena.adopt(os.dup(held.arena.fd)) for held in trainer.stager.held[:adopted]]
    heir.stager.adopt(kept, [False] * adopted, restored=size.arena)
    staged = heir.save()
    assert staged
    assert [(message.keep, message.fds) for message in heir.of(Arenas)] == [(1, 1)] * (2 - adopted)
    assert [held.arena for held in heir.stager.held[:adopted]] == kept
    assert staged.arena != size.arena, "the snapshot it was restored from stays whole as long as it can"
    assert heir.tensors_of(staged) == heir.expected()


def test_an_adopted_arena_that_still_drains_is_not_written_before_its_commit(trainer: Trainer) -> None:
    trainer.train()
    first = trainer.save()
    assert first
    heir = Trainer()
    heir.stager.adopt([Arena.adopt(os.dup(held.arena.fd)) for held in trainer.stager.held], [True, True], restored=0)
    heir.train()
    assert not heir.stager.stage("emergency", deadline=time.monotonic())
    heir.stager.free(1, 1)
    assert heir.save("emergency")


def test_a_snapshot_that_was_given_up_may_be_staged_again(trainer: Trainer) -> None:
    trainer.train()
    first = trainer.save()
    assert first
    assert trainer.save() is None
    assert trainer.of(Declined)[-1].staged
    trainer.stager.free(first.arena, first.step, lost=True)
    again = trainer.save()
    assert again
    assert again.step == first.step
    assert trainer.tensors_of(again) == trainer.expected()


def test_an_older_snapshot_that_was_given_up_does_not_make_the_newest_be_staged_twice(trainer: Trainer) -> None:
    trainer.train()
    first = trainer.save()
    trainer.train()
    assert first
    assert trainer.save("emergency")
    trainer.stager.free(first.arena, first.step, lost=True)
    assert trainer.save("emergency") is None
    assert trainer.of(Declined)[-1].staged


def test_a_commit_that_is_told_twice_does_not_free_an_arena_that_is_in_use_again(trainer: Trainer) -> None:
    trainer.train()
    first = trainer.save()
    assert first
    trainer.commit(first)
    for held in trainer.stager.held[1:]:
        held.busy = True  # so that the same arena is taken again
    trainer.train()
    assert trainer.save("emergency")
    trainer.commit(first)
    assert trainer.stager.held[first.arena].busy


def test_what_has_begun_to_change_in_mid_step_is_not_staged_torn_and_is_cloned_from_then_on(trainer: Trainer) -> None:
    table = torch.zeros(1 << 17)
    trainer.run.model.register_buffer("table", table)
    trainer.train()

    def change(message: Any) -> None:
        if isinstance(message, Staging):
            table.add_(1)

    trainer.on_send = change
    assert trainer.save() is None
    assert "model.table was changed while it was copied" in trainer.of(Declined)[-1].why
    trainer.train()
    before = float(table[0])
    staged = trainer.save()
    assert staged
    assert load(trainer.bytes_of(staged))["model.table"][0] == before


def test_an_emergency_does_not_wait_for_an_update_past_its_deadline(trainer: Trainer) -> None:
    trainer.guard.close()
    assert not trainer.stager.stage("emergency", deadline=time.monotonic())
    assert "behind its update" in trainer.of(Declined)[-1].why


def test_a_last_save_holds_the_loop_before_its_next_update(trainer: Trainer) -> None:
    trainer.train()
    assert trainer.stager.stage("emergency", deadline=time.monotonic() + PATIENCE_S, hold=True)
    loop = in_background(trainer.train)
    loop.join(GLANCE_S)
    assert loop.is_alive()
    assert trainer.guard.boundary.step == 1


@pytest.mark.parametrize("reason", ["cadence", "milestone"])
def test_a_wanted_save_lets_the_loop_go_on_whether_it_was_made_or_not(
    trainer: Trainer, reason: SaveReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_step() -> None:
        iterate(trainer.guard, trainer.run.state, wanted=True)

    one_step()
    trainer.stager.stage_wanted(reason)
    memory_for(monkeypatch, 0)
    trainer.run.model.register_buffer("more", torch.zeros(2))
    for _ in range(2):
        loop = in_background(one_step)
        loop.join(PATIENCE_S)
        assert not loop.is_alive()
        trainer.stager.stage_wanted(reason)  # declined: there is no memory for the larger state


def test_a_restarted_agent_is_told_the_snapshots_it_has_not_committed(trainer: Trainer) -> None:
    trainer.stager.announce()
    assert trainer.sent == []
    trainer.train()
    first = trainer.save()
    trainer.train()
    second = trainer.save("emergency")
    assert first
    assert second
    trainer.commit(first)
    trainer.stager.announce()
    told = trainer.of(Arenas)[-1]
    assert (told.keep, told.fds) == (0, 2)
    assert told.staged[first.arena] is None
    assert Staged(**told.staged[second.arena]) == second
