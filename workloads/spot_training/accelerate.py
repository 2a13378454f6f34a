"""A loop with Hugging Face's Accelerate as a session. What was given to `accelerator.prepare()` is tracked.

    from spot_training import accelerate

    session = accelerate.session(accelerator, best=best)    # behind prepare(); what else the loop carries
    for epoch in session.epochs(3):
        for batch in session.batches(loader):
            with accelerator.accumulate(model):
                ...                                         # forward, backward, step, zero_grad
                session.log(loss=loss.item())

A step is one update: all the batches that `accumulate()` puts together. What was registered with
`register_for_checkpointing()` is tracked too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from accelerate import Accelerator
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.state import GradientState
from accelerate.utils import DistributedType, send_to_device
from spot_training.data import ResumableLoader
from spot_training.framework import FrameworkSession
from spot_training.link import SessionError
from spot_training.loaders import resumable
from torch.utils.data import IterableDataset

__all__ = ["AccelerateSession", "session"]


def session(accelerator: Accelerator, run_id: str | None = None, *, seed: int = 0, **things: Any) -> AccelerateSession:
    """A session of `accelerator`'s loop. `seed` says the order of the rows; `things`: as for `Session.track()`.

    Raises:
        SessionError: this can't be resumed exactly; says what, and what to change.
    """
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.num_processes > 1 or accelerator.distributed_type not in plain:
        raise SessionError(
            f"{accelerator.distributed_type.value} with {accelerator.num_processes} processes can't be resumed "
            "exactly: a session is one process with one GPU; start the script with python, not with accelerate launch"
        )
    opened = AccelerateSession.open(run_id)
    opened.begin(accelerator, seed, things)
    return opened


class AccelerateSession(FrameworkSession):
    """`epochs()` and `batches()` are the loop's; all else is a session's."""

    def begin(self, accelerator: Accelerator, seed: int, things: dict[str, Any]) -> None:
        """Of `session()`."""
        self._accelerator = accelerator
        self._seed = seed
        self._things = things
        self._made: tuple[Any, ResumableLoader[Any]] | None = None  # the loader that was given, and what it became
        self._trained = False  # on a batch, since the last boundary
        self._counts = {"steps": 0, "accelerator": accelerator.step}

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are left of `count`, the one in which a run goes on included."""
        place = self.peek("loader")
        for epoch in range(place["epoch"] if place else 0, count):
            yield epoch
            if self._made is None or self._made[1].epoch <= epoch:
                raise SessionError(f"epoch {epoch} had no batch: iterate session.batches(loader) inside of epochs()")

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches that are left of this epoch, on the accelerator's device. `loader`: what `prepare()` gave.

        Raises:
            SessionError: it is another loader than before.
            DataError: it can't be resumed exactly.
        """
        made = self._resumable(loader)
        place = _Place(made)
        frame: FrameType | None = sys._getframe(1)
        batches: Iterator[Any] = iter(())
        begun = False
        place.begin()
        try:
            while True:
                if not begun or self._accelerator.sync_gradients:
                    self._top(frame)
                if not begun:
                    if made.batch >= len(made):  # it was cut behind the last batch, where an evaluation stands
                        made.end_epoch()
                        return
                    begun, batches = True, iter(made)
                if (batch := next(batches, place)) is place:
                    return
                place.end_of_dataloader = made.batch == len(made)
                self._trained = True
                yield send_to_device(batch, self._accelerator.device)
        finally:
            place.end()

    def _resumable(self, loader: Any) -> ResumableLoader[Any]:
        if self._made is None:
            if isinstance(loader.dataset, IterableDataset):
                raise SessionError(
                    f"{type(loader.dataset).__name__} is a stream, whose end accumulate() asks for: give it a length"
                )
            self._made = loader, resumable(loader, seed=self._seed)
            self._track(self._made[1])
        if self._made[0] is not loader:
            raise SessionError("session.batches() was given another loader before: one loader is trained on")
        return self._made[1]

    def _track(self, loader: ResumableLoader[Any]) -> None:
        accelerator = self._accelerator
        things = {
            "models": [accelerator.unwrap_model(one) for one in accelerator._models],
            "optimizers": [one.optimizer for one in accelerator._optimizers],
            "schedulers": [one.scheduler for one in accelerator._schedulers],
            "registered": list(accelerator._custom_objects),
            "scaler": accelerator.scaler,
        }
        found = {name: value for name, value in things.items() if value}
        self.track(**found, **self._things, loader=loader, counts=self._counts)
        self.knows(accelerator=vars(accelerator))
        accelerator.step = self._counts["accelerator"]

    def _top(self, frame: FrameType | None) -> None:
        self._counts["steps"] += self._trained
        self._trained = False
        self._counts["accelerator"] = self._accelerator.step
        self.boundary(self._counts["steps"], frame)


class _Place(DataLoaderStateMixin):  # type: ignore[misc]
    """What tells `accumulate()` that a batch is its epoch's last."""

    def __init__(self, loader: ResumableLoader[Any]) -> None:
        self.gradient_state = GradientState()
        self.dataset, self.total_batch_size, self.use_stateful_dataloader = loader.dataset, loader.batch_size, False
        self._drop_last = True  # the remainder, which a gather_for_metrics in evaluation wants, is not ours to say
