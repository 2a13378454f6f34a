"""A small trainer that uses everything a snapshot must hold: dropout, BatchNorm, Python's and NumPy's RNG, a scheduler.

`python -m tests.promises.toy RUN.yaml` trains the stages of the run file, or the run in one; TOY_STEP_S makes each step
long, TOY_CRASH ends it at a step, TOY_WIDTH sets the model's width, TOY_DATA changes what is at a place of the data
(`7:1000,9:nan` are factors of the loss; what has none is left out from the start), and TOY_PAUSE is
`PHASE:STEP:SECONDS`, a stretch of PHASE (forward, backward, update, between) in which a test can strike, once a VM. Its
marker `in-PHASE-STEP` tells of it, and ends it when something is written there.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spot_training import Session
from torch import nn

from agent.config import load_run
from agent.config.legs import ends_of


class Walk:
    """Data whose order depends on its position only."""

    def __init__(self) -> None:
        self.position = 0
        changes = [each.partition(":") for each in filter(None, os.environ.get("TOY_DATA", "").split(","))]
        self.factors = {int(at): float(factor) for at, _, factor in changes if factor}
        self.left_out = {int(at) for at, _, factor in changes if not factor}
        self.weight = 1.0  # of what was given last

    def next(self, width: int) -> torch.Tensor:
        while self.position in self.left_out:
            self.position += 1
        generator = torch.Generator().manual_seed(1000 + self.position)
        self.weight = self.factors.get(self.position, 1.0)
        self.position += 1
        return torch.randn(8, width, generator=generator)

    def place(self) -> int:
        return self.position

    def pass_over(self, spans: Sequence[Sequence[int]]) -> None:
        self.left_out |= {at for start, end in spans for at in range(start, end)}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict["position"]


class Pause(nn.Module):
    """Passes its input on; stops for a while on the way forward or back when told to."""

    def __init__(self, pauses: dict[tuple[str, int], float]) -> None:
        super().__init__()
        self.pauses = pauses
        self.step = 0

    def at(self, phase: str) -> None:
        seconds = self.pauses.get((phase, self.step), 0.0)
        marker = Path(os.environ["SPOT_STATE_DIR"], f"in-{phase}-{self.step}")
        if seconds and not marker.exists():
            marker.touch()
            end = time.monotonic() + seconds
            while time.monotonic() < end and not marker.stat().st_size:
                select.select([], [], [], min(0.02, seconds))  # time.sleep() fails where the clock is a faked one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.at("forward")
        if x.requires_grad:
            x.register_hook(lambda _: self.at("backward"))  # type: ignore[no-untyped-call]
        return x


def main() -> None:
    run = load_run(Path(sys.argv[1]))
    step_s = float(os.environ.get("TOY_STEP_S", "0"))
    width = int(os.environ.get("TOY_WIDTH", "32"))
    pauses: dict[tuple[str, int], float] = {}
    for entry in filter(None, os.environ.get("TOY_PAUSE", "").split(",")):
        phase, at, seconds = entry.split(":")
        pauses[phase, int(at)] = float(seconds)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    pause = Pause(pauses)
    model = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.2), pause, nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    data = Walk()
    with Session.open() as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler, data=data)
        ends = ends_of(run) or {"": run.training.max_steps}
        for number, (stage, end) in enumerate(ends.items()):
            if session.step >= end:
                continue
            if number:  # a second stage trains the rest of the model, and its optimizer begins anew
                model[0].requires_grad_(False)
                if session.step == list(ends.values())[number - 1]:
                    optimizer.state.clear()
            for step in session.steps(end):
                pause.step = step
                if os.environ.get("TOY_CRASH") == str(step):
                    sys.exit(f"told to crash at step {step}")
                x = data.next(width) * (1 + random.random()) + float(np.random.rand())
                loss = model(x).square().mean() * data.weight
                loss.backward()
                select.select([], [], [], step_s)
                with session.update():
                    pause.at("update")
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad(set_to_none=True)
                    session.log(loss=loss.item(), lr=scheduler.get_last_lr()[0])
                pause.at("between")
            if end < run.training.max_steps:
                session.stage_complete(stage)
        session.finish(lambda folder: torch_save(model, optimizer, folder))


def torch_save(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Weights, optimizer state and RNG as raw bytes: what must be equal, bit for bit."""
    with (folder / "final.bin").open("wb") as out:
        for name, tensor in sorted(model.state_dict().items()):
            out.write(name.encode() + tensor.numpy().tobytes())
        for state in optimizer.state_dict()["state"].values():
            for key in sorted(state):
                out.write(key.encode() + state[key].numpy().tobytes())
        out.write(torch.get_rng_state().numpy().tobytes())
        out.write(repr((random.getstate(), list(np.random.get_state()))).encode())


if __name__ == "__main__":
    main()
