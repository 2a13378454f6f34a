"""Loops as people write them over a `ResumableLoader`, with a session: cut at a boundary, resumed twice, exact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spot_training import ResumableLoader, Session
from torch import Tensor, nn

STEPS = 14
Shape = Callable[[Session, ResumableLoader[Tensor], Callable[[Tensor], float]], Iterator[Any]]


class Noisy(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> Tensor:
        return torch.full((4,), float(row)) + torch.randn(4) / 10


def flat(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    batches = loader.forever()
    for step in session.steps(STEPS):
        yield step, learn(next(batches))


def step_first(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    for step, batch in zip(session.steps(STEPS), loader.forever(), strict=False):
        yield step, learn(batch)


def batch_first(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    for batch, step in zip(loader.forever(), session.steps(STEPS), strict=False):
        yield step, learn(batch)


def epochs(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    steps = session.steps(STEPS)
    for epoch in loader.epochs(100):
        for batch in loader:
            if (step := next(steps, None)) is None:
                return
            yield epoch, step, learn(batch)


def ahead(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    """nanoGPT's."""
    batches = loader.forever()
    batch = next(batches)
    for step in session.steps(STEPS):
        now, batch = batch, next(batches)
        yield step, learn(now)


def one_each(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    for step in session.steps(STEPS):
        yield step, learn(next(iter(loader)))


def begun_again(session: Session, loader: ResumableLoader[Tensor], learn: Callable[[Tensor], float]) -> Iterator[Any]:
    batches = iter(loader)
    for step in session.steps(STEPS):
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(loader)
            batch = next(batches)
        yield step, learn(batch)


def play(shape: Shape, restored: Any = None) -> tuple[list[Any], dict[int, Any]]:
    """What each step did, and a snapshot of each boundary, by its step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = ResumableLoader[Tensor](Noisy(), 3, shuffle=True, seed=5)
    session: Any = Session.open("alone")
    session.track(model=model, optimizer=optimizer, loader=loader)
    if restored:
        session.step, tensors, values = restored
        session._course._state.load(tensors, values)
        session._course._checks.after_track()

    def learn(batch: Tensor) -> float:
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    snapshots: dict[int, Any] = {}
    top = session._course.top

    def noted(step: int, **given: Any) -> None:
        top(step, **given)
        found = session._course._state.snapshot(session._course._guard.boundary)
        tensors = {name: tensor.clone() for name, tensor in found.tensors.items()}
        snapshots[step] = (step, tensors, json.loads(json.dumps(found.values)))

    session._course.top = noted
    done = list(shape(session, loader, learn))
    session.close()
    return done, snapshots


@pytest.mark.parametrize("shape", [flat, step_first, batch_first, epochs, ahead, one_each, begun_again])
def test_a_loop_over_our_loader_resumes_exactly_wherever_its_batch_is_fetched(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPOT_AGENT_SOCKET", raising=False)
    straight, snapshots = play(shape)
    assert len(straight) == STEPS
    for cut in (1, 4, 5):
        once, again = play(shape, snapshots[cut])
        twice, _ = play(shape, again[cut + 3])
        assert once == straight[cut:]
        assert twice == straight[cut + 3 :]
