"""A training script as people write one, with the real library and PyTorch, and a truth to tell.

`python -m tests.promises.script [update] [finish]`: with `session.update()` around its optimizer's step, and with
`session.finish()` at its end, or without. The environment is that of `tests.promises.light`. Its losses and its state
come out of PyTorch's and Python's random numbers, in whole numbers, so that whoever counts knows them.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.promises.light import Truth

if TYPE_CHECKING:
    import torch
    from spot_training import Session

SEED = 7


class Loop:
    """Model, optimizer and what a step does to them."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        random.seed(SEED)
        self.model = torch.nn.Linear(8, 1, bias=False)
        with torch.no_grad():
            self.model.weight.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0, momentum=0.5)

    def backward(self) -> int:
        """The step's loss."""
        import torch

        x = torch.randint(-3, 4, (1, 8)).float() * random.choice([1.0, 2.0])
        loss: torch.Tensor = self.model(x).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return int(x.sum())

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def digest(self) -> str:
        state: Any = self.optimizer.state_dict()["state"]
        momentum = [each["momentum_buffer"].tolist() for each in state.values()]
        told = repr((self.model.weight.tolist(), momentum, random.getstate()))
        return blake2b(told.encode(), digest_size=16).hexdigest()


def uninterrupted(steps: int) -> list[tuple[str, int]]:
    """The state before each step, and its loss; the last entry is the state at the end."""
    import torch

    with torch.random.fork_rng(devices=[]):
        before, loop, told = random.getstate(), Loop(), list[tuple[str, int]]()
        for _ in range(steps + 1):
            digest = loop.digest()
            told.append((digest, loop.backward()))
            loop.update()
        random.setstate(before)
    return told


def train(how: list[str], loop: Loop, session: Session, truth: Truth) -> None:
    restored = False
    step_s = float(os.environ.get("LIGHT_STEP_S", "0.03"))
    for step in session.steps(1_000_000):
        if not restored:
            truth.tell("restored", step, loop.digest())
            restored = True
        with contextlib.suppress(OSError, ValueError):
            if step >= int(Path(os.environ["LIGHT_END"]).read_text()):
                break
        time.sleep(step_s)
        if os.path.exists(os.environ["LIGHT_FLOOD"]):  # noqa: PTH110 - once a step
            os.write(1, b"".join(b"%d of a flood\r" % at for at in range(20_000)))
        truth.tell("begins", step)
        loss = loop.backward()
        session.log(loss=loss)
        if "update" in how:
            with session.update():
                loop.update()
        else:
            loop.update()
        truth.tell("trained", step + 1)
    if "finish" in how:
        session.finish(lambda folder: (folder / "final").write_text(loop.digest()))
    truth.tell("finished", step, loop.digest())


def main() -> None:
    truth = Truth(os.environ["LIGHT_TRUTH"])
    truth.tell("started", 0)
    time.sleep(float(os.environ.get("LIGHT_IMPORT_S", "0")))
    from spot_training import Session

    loop, session = Loop(), Session.open()
    session.track(model=loop.model, optimizer=loop.optimizer)
    train(sys.argv[1:], loop, session, truth)


if __name__ == "__main__":
    main()
