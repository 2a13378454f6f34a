"""Lightning's `Trainer` as a session, by a callback: one line, no `ckpt_path`.

    from spot_training.lightning import SpotCallback

    trainer = Trainer(..., callbacks=[SpotCallback()])
    trainer.fit(model, loader)

Saves start in the middle of a step when a notice comes; during a validation, which is part of the step before it, a
notice waits for its end. What a resumed run gets back: module, optimizers, schedulers, gradient scaler, random numbers,
the place in the data, the loops' progress, callbacks' and the data module's state, epoch-level logs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from spot_training.course import Course
from spot_training.data import ResumableLoader
from spot_training.framework import FrameworkSession
from spot_training.link import SessionError
from spot_training.loaders import drawn, resumable
from spot_training.steppers import hook_step
from torch import Tensor
from torch.utils.data import IterableDataset

__all__ = ["SpotCallback"]

_METRICS = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


class SpotCallback(Callback):  # type: ignore[misc]
    """Makes `trainer.fit()` a session. `seed` says the order of the rows; `run_id`: as for `Session.open()`."""

    def __init__(self, run_id: str | None = None, *, seed: int = 0) -> None:
        self._seed = seed
        self.session = LightningSession.open(run_id)
        self._kept: _Kept | None = None
        self._loader: ResumableLoader[Any] | None = None
        self._module: Any = None
        self._tracked = False
        self._updates = -1  # the trainer's, at the last boundary

    # --- Lightning's side ---

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All but the data is built; the loops' place must be known before they begin."""
        if self._kept:
            raise SessionError("trainer.fit() was called before: one session is one training")
        _refuse(trainer)
        self._module = pl_module
        self._kept = _Kept(trainer)
        self._replace_loader(trainer)
        place = self.session.peek("trainer")
        if place:
            trainer.fit_loop.load_state_dict(place["loops"])
        if place and place["over"]:
            self._track(trainer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Forward and backward run inside of the optimizer's step(), as its closure: here the update begins."""
        self.session.updating()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All steps are done: that is in the bucket before the script goes on with what it has trained."""
        assert self._kept is not None
        self._track(trainer)
        self._kept.over = True
        self._boundary(trainer)
        self.session.commit()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        values = trainer.callback_metrics.items()
        self.session.log(**{name: value.item() for name, value in values if isinstance(value, Tensor)})

    def on_validation_start(self, *_: Any) -> None:
        self.session.evaluating(True)

    def on_validation_batch_end(self, *_: Any) -> None:
        self.session.beat()

    def on_validation_end(self, *_: Any) -> None:
        self.session.evaluating(False)

    # --- ours ---

    def _replace_loader(self, trainer: pl.Trainer) -> None:
        loop = trainer.fit_loop
        loop.setup_data()
        combined = loop._combined_loader
        if combined is None or len(combined.flattened) != 1:
            raise SessionError("several training loaders, or none, can't be resumed exactly: give fit() one loader")
        if isinstance(combined.flattened[0].dataset, IterableDataset):
            raise SessionError("a stream, which Lightning reads ahead of its steps, can't be resumed: give it a length")
        self._loader = resumable(combined.flattened[0], seed=self._seed)
        combined.flattened = [_Batches(self._loader, lambda: self._before_batch(trainer))]
        iter(loop._data_fetcher)

    def _before_batch(self, trainer: pl.Trainer) -> None:
        self._track(trainer)
        if trainer.global_step != self._updates:
            self._boundary(trainer)

    def _track(self, trainer: pl.Trainer) -> None:
        if self._tracked:
            return
        self._tracked = True
        assert self._loader is not None
        things = {
            "model": self._module,
            "optimizers": list(trainer.optimizers),
            "schedulers": [config.scheduler for config in trainer.lr_scheduler_configs],
            "scaler": getattr(trainer.precision_plugin, "scaler", None),
        }
        found = {name: thing for name, thing in things.items() if thing is not None and thing != []}
        self.session.track(**found, loader=self._loader, trainer=self._kept)
        if self._loader.batch >= trainer.num_training_batches:
            self._loader.end_epoch()
        self._steps = self.session.step

    def _boundary(self, trainer: pl.Trainer) -> None:
        self._steps += 0 <= self._updates < trainer.global_step
        self._updates = trainer.global_step
        self.session.boundary(self._steps)


class LightningSession(FrameworkSession):
    """Whose updates begin behind the closure that an optimizer's step() is given."""

    def updating(self) -> None:
        """An update begins."""
        self._tracking("trainer.fit()").close()

    def evaluating(self, now: bool) -> None:
        """A validation begins, or has ended."""
        self._beats.enter("evaluating" if now else "training")

    def _hook(self, stepper: Any, course: Course) -> None:
        hook_step(stepper, before=lambda: None, after=course.behind)


class _Batches:
    """What the fit loop takes its batches from."""

    def __init__(self, loader: ResumableLoader[Any], before: Any) -> None:
        self._loader, self._before = loader, before
        self.dataset, self.batch_size = loader.dataset, loader.batch_size
        self._made: Generator[Any] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        if self._made is not None:
            self._made.close()
        self._made = drawn(self._loader, self._before)
        return self._made


class _Kept:
    """The loops' progress, the callbacks' state, and what was logged for the epoch so far."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self.over = False
        """No step is left."""
        results = trainer.fit_loop.epoch_loop._results
        self._update, results.update_metrics = results.update_metrics, self._update_metrics
        self._awaited: dict[str, dict[str, Any]] = {}  # sums of this epoch, until somebody logs to them again

    def state_dict(self) -> dict[str, Any]:
        trainer = self._trainer
        connector = trainer._logger_connector
        data = trainer.datamodule
        sums = {
            key: {"value": one.value, "size": getattr(one, "cumulated_batch_size", None)}
            for key, one in trainer.fit_loop.epoch_loop._results.items()
            if one.is_tensor and one.meta.on_epoch and not one.has_reset
        }
        return {
            "loops": trainer.fit_loop.state_dict(),
            "callbacks": {name: one.state_dict() for name, one in self._callbacks()},
            "datamodule": data.state_dict() if data else {},
            "metrics": {name: dict(getattr(connector, name)) for name in _METRICS},
            "sums": self._awaited | sums,
            "fetched": trainer.fit_loop._data_fetcher.fetched,
            "stop": trainer.should_stop,
            "over": self.over,
        }

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        trainer = self._trainer
        loops = trainer.fit_loop
        loops.load_state_dict(kept["loops"])
        for loop in (loops, loops.epoch_loop, loops.epoch_loop.val_loop):
            loop.on_iteration_done()  # they are where they were: from here on nothing is a restart any more
        here = dict(self._callbacks())
        if here.keys() != kept["callbacks"].keys():
            raise SessionError(
                f"the checkpoint was written with the callbacks {sorted(kept['callbacks'])}, and the trainer has "
                f"{sorted(here)} now: put them back as they were, or give the changed run a new run_id"
            )
        for name, state in kept["callbacks"].items():
            here[name].load_state_dict(state)
        if trainer.datamodule and kept["datamodule"]:
            trainer.datamodule.load_state_dict(kept["datamodule"])
        for name, values in kept["metrics"].items():
            getattr(trainer._logger_connector, name).clear()
            getattr(trainer._logger_connector, name).update(values)
        self._awaited = kept["sums"]
        trainer.fit_loop._data_fetcher.fetched = kept["fetched"]
        trainer.should_stop = kept["stop"]
        self.over = kept["over"]

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("it holds the trainer, with its model")

    def _callbacks(self) -> Iterator[tuple[str, Any]]:
        for place, one in enumerate(self._trainer.callbacks):
            if type(one).state_dict is not Callback.state_dict:
                yield f"{place}.{type(one).__name__}", one

    def _update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        if awaited := self._awaited.pop(key, None):
            metric = self._trainer.fit_loop.epoch_loop._results[key]
            metric.value = awaited["value"]
            if awaited["size"] is not None:
                metric.cumulated_batch_size = awaited["size"]
        self._update(key, value, batch_size)


def _refuse(trainer: pl.Trainer) -> None:
    """Raises SessionError: something about this trainer can't be resumed exactly."""
    wrong = {
        f"{trainer.world_size} processes: a session is one process with one GPU; say devices=1": trainer.world_size > 1,
        "reload_dataloaders_every_n_epochs: rows that change can't be checked": (
            trainer.reload_dataloaders_every_n_epochs > 0
        ),
        "ckpt_path: the session goes on from the run's own checkpoint": trainer.ckpt_path is not None,
        "a val_check_interval in time: a resumed run would validate at another step": (
            getattr(trainer, "_val_check_time_interval", None) is not None
        ),
    }
    if found := [what for what, so in wrong.items() if so]:
        raise SessionError("this Trainer can't be resumed exactly with " + "; ".join(found))
