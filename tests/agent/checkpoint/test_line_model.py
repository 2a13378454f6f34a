"""One line, never two: every interleaving of two agents and a bucket, on the very code that VMs run.

One agent lives twice (it is killed and started again in between), and both do what agents do: claim, restore what the
line has, train two checkpoints, commit them, commit what the life before had still on its way, finish the run. Between
any two calls to the bucket the other may do all that it has left. The bucket loses answers: a call was carried out, and
nobody heard of it. All orders are tried, none is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pytest

from agent.checkpoint import line as module
from agent.checkpoint.line import AttemptError, Line, LineEntry, RunComplete, Superseded
from agent.store import AlreadyExists, NotFound, StoredObject, Unavailable

T = 1.0


class Bucket:
    """The part of a store that a line uses, in memory; `lose` is the number of the create whose answer is lost."""

    url = "memory://"

    def __init__(self, lose: int | None) -> None:
        self.objects: dict[str, bytes] = {}
        self.creates = 0
        self.lose = lose

    def create(self, name: str, data: bytes, *, timeout: float) -> StoredObject:
        self.creates += 1
        if name in self.objects and self.objects[name] != data:
            raise AlreadyExists(name)
        self.objects[name] = data
        if self.creates == self.lose:
            raise Unavailable("the answer was lost")
        return StoredObject(name, len(data), 0, 1, 0.0)

    def list(self, prefix: str = "", *, timeout: float, limit: int | None = None) -> list[StoredObject]:
        names = sorted(name for name in self.objects if name.startswith(prefix))[:limit]
        return [StoredObject(name, 1, 0, 1, 0.0) for name in names]

    def read(self, name: str, *, timeout: float) -> bytes:
        if name not in self.objects:
            raise NotFound(name)
        return self.objects[name]


@dataclass
class Agent:
    """One VM's agent, as a sequence of calls: it yields before each, and the scheduler says who goes next."""

    name: str
    bucket: Bucket
    committed: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    restored: list[tuple[str, ...]] = field(default_factory=list)
    fenced: ClassVar[Callable[[Line, dict[str, Any]], LineEntry]] = lambda line, what: line.commit(**what, timeout=T)

    def live(self, lives: int) -> Generator[None, None, None]:
        late: dict[str, Any] | None = None
        entry: LineEntry | None = None
        for life in range(lives):
            line = Line(self.bucket)  # type: ignore[arg-type]
            yield
            entry = self.insist(partial(line.claim, claimant=self.name, facts={}, found=list, timeout=T))
            if entry is None:
                return
            yield  # an hour may pass here, and in each of the gaps
            self.restored.append(entry.checkpoints)
            base = max((int(folder.partition("-")[0]) for folder in entry.checkpoints), default=0)
            steps = [base + 1, base + 2]
            if late:  # what the life before had staged, and what its successor still drains
                yield
                if self.insist(partial(Agent.fenced, line, late)):
                    self.committed.append(late["folder"])
            for step in steps:
                folder = f"{step}-{self.name}{life}"
                self.attempts[folder] = entry.attempt
                yield
                what = {"attempt": entry.attempt, "claimant": self.name, "folder": folder, "step": step}
                made = self.insist(partial(Agent.fenced, line, what))
                if made is None:
                    return
                self.committed.append(folder)
            folder = f"{base + 3}-{self.name}{life}"
            self.attempts[folder] = entry.attempt
            late = {"attempt": entry.attempt, "claimant": self.name, "folder": folder, "step": base + 3}
        assert entry
        yield
        self.insist(partial(line.finish, attempt=entry.attempt, claimant=self.name, result={}, timeout=T))

    def insist(self, call: Callable[[], LineEntry]) -> LineEntry | None:
        """As the saver does: asked again where no answer came; given up where another has the line."""
        for _ in range(3):
            try:
                return call()
            except Unavailable:
                continue
            except (Superseded, AttemptError, RunComplete):
                return None
        raise AssertionError("the bucket lost one answer, not three")


def schedules(lengths: tuple[int, int]) -> Iterator[str]:
    """Every order in which two agents can take so many steps."""
    first, second = lengths
    if not first or not second:
        yield "a" * first + "b" * second
        return
    yield from ("a" + rest for rest in schedules((first - 1, second)))
    yield from ("b" + rest for rest in schedules((first, second - 1)))


def play(schedule: str, lose: int | None) -> tuple[Bucket, dict[str, Agent]]:
    bucket = Bucket(lose)
    agents = {"a": Agent("a", bucket), "b": Agent("b", bucket)}
    running = {name: agents[name].live(2 if name == "a" else 1) for name in agents}
    for name in schedule:
        next(running[name], None)
    for rest in running.values():
        for _ in rest:
            pass
    return bucket, agents


def check(bucket: Bucket, agents: dict[str, Agent]) -> None:
    entries = Line(bucket).entries(timeout=T)  # type: ignore[arg-type]
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1)), "one entry after the other"
    attempts = agents["a"].attempts | agents["b"].attempts
    owner: LineEntry | None = None
    for before, entry in zip([None, *entries], entries, strict=False):
        assert before is None or before.kind != "done", "nothing comes after the end"
        if entry.kind == "claim":
            owner = entry
            assert entry.checkpoints == (before.checkpoints if before else ()), (
                "a claim changes nothing of what is safe"
            )
            continue
        assert owner
        assert before
        assert (entry.attempt, entry.claimant) == (owner.attempt, owner.claimant), "nothing past another's claim"
        if entry.kind == "commit":
            (new,) = set(entry.checkpoints) - set(before.checkpoints)
            assert [each for each in entry.checkpoints if each != new] == list(before.checkpoints), "one chain"
            assert owner.since <= attempts[new] <= owner.attempt, "and no attempt that another's came after adds to it"
            assert owner.claimant in new
    last = set(entries[-1].checkpoints)
    for agent in agents.values():
        assert set(agent.committed) <= last, "what an agent was told is committed is never lost"
        assert all(set(restored) <= last for restored in agent.restored)


@pytest.mark.parametrize(
    ("lose", "steps"),
    [(None, (8, 5)), *(pytest.param(lose, (10, 6), marks=pytest.mark.slow) for lose in (None, 1, 3, 5, 8, 11))],
)
def test_two_agents_never_both_advance_a_run_in_any_order_of_events(
    lose: int | None, steps: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order of the first `steps` of each; what is left then follows one after the other."""
    monkeypatch.setattr(module, "utc_now", lambda: "now")
    for schedule in schedules(steps):
        check(*play(schedule, lose))


def test_the_model_sees_a_fence_that_is_asked_once_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: look whether another has claimed, then write. The model must find the two lines of that."""
    monkeypatch.setattr(module, "utc_now", lambda: "now")

    def asked_before(line: Line, what: dict[str, Any]) -> LineEntry:
        newest = line._known  # what it saw when it asked, however long ago
        assert newest
        entry = module.advanced(newest, **what)
        name = f"{entry.name}.{what['claimant']}"  # a name of its own: nothing of the commit is what fences it
        line._store.create(name, entry.to_json(), timeout=T)
        return line._keep(entry)

    monkeypatch.setattr(Agent, "fenced", staticmethod(asked_before))
    with pytest.raises(AssertionError):
        for schedule in schedules((10, 6)):
            check(*play(schedule, None))
