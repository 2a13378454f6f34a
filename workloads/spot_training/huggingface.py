"""Hugging Face's `Trainer`, and TRL's on it, as a session: two lines, no `resume_from_checkpoint`.

    from spot_training import huggingface

    trainer = Trainer(...)
    huggingface.session(trainer)
    trainer.train()

Saves start in the middle of a step when a notice comes. What a resumed run gets back: model, optimizer, scheduler,
gradient scaler, random numbers, the place in the data, the trainer's state with its history, its callbacks' state.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers.trainer as trainer_module
from spot_training.data import ResumableLoader
from spot_training.framework import FrameworkSession
from spot_training.huggingface_state import Kept, without_times
from spot_training.link import SessionError
from spot_training.loaders import drawn, resumable
from torch.utils.data import IterableDataset
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

__all__ = ["session"]


def session(trainer: Any, run_id: str | None = None) -> FrameworkSession:
    """Make `trainer.train()` a session. `run_id`: as for `Session.open()`.

    Returns the session: `session.finish(trainer.save_model)` behind `train()` stores the model as the run's result.

    Raises:
        SessionError: this trainer can't be resumed exactly; says by what, and what to change.
    """
    _refuse(trainer)
    opened = FrameworkSession.open(run_id)
    _Training(trainer, opened)
    return opened


class _Training:
    """One trainer, whose loop is led through its own resuming, with all but its place put back by the session."""

    def __init__(self, trainer: Any, session: FrameworkSession) -> None:
        self._trainer = trainer
        self._session = session
        self._kept = Kept(trainer)
        self._loader: ResumableLoader[Any] | None = None
        self._tracked = False
        self._begun = False
        self._counted = -1  # the steps at the last boundary
        self._folder = ""  # what the trainer is told to resume from: it holds its place, and nothing else
        self._plain = {
            name: getattr(trainer, name)
            for name in ("train", "get_train_dataloader", "_load_from_checkpoint", "_evaluate", "_finalize_training")
        }  # fmt: skip
        trainer.train = self._train
        trainer.get_train_dataloader = self._get_train_dataloader
        trainer._load_from_checkpoint = self._load_from_checkpoint
        trainer._evaluate = self._evaluate
        trainer._finalize_training = self._finalize_training
        trainer.add_callback(_Log(session))

    def _train(self, resume_from_checkpoint: Any = None, trial: Any = None, *rest: Any, **named: Any) -> Any:
        """Raises SessionError: it was called a second time, or with what a session stands for."""
        if self._begun:
            raise SessionError("trainer.train() was called before: one session is one training")
        if resume_from_checkpoint:
            raise SessionError("leave resume_from_checkpoint out: the session goes on from the run's own checkpoint")
        if trial is not None:
            raise SessionError("a hyperparameter search trains several models: a session is one training")
        self._begun = True
        self._kept.look()
        place = self._session.peek("trainer")
        with tempfile.TemporaryDirectory(prefix="spot-place-") as folder:
            if place:
                self._folder = folder
                state = replace(self._trainer.state, **place["state"], log_history=[], stateful_callbacks={})
                state.save_to_json(str(Path(folder) / "trainer_state.json"))
                self._trainer.args.eval_on_start = False  # it was done
            try:
                return self._plain["train"](self._folder or None, trial, *rest, **named)
            except _OverError:  # the trainer would train a step, or evaluate, before it looked whether all is done
                return self._trainer._finalize_training(None, 0, time.time())

    def _get_train_dataloader(self) -> _Steps:
        made = self._plain["get_train_dataloader"]()
        args = self._trainer.args
        self._loader = resumable(made, seed=args.seed if args.data_seed is None else args.data_seed)
        return _Steps(self._loader, self._before_batch)

    def _before_batch(self) -> None:
        """The trainer asks for a batch. Its first one in each step is the top of the loop."""
        self._track()
        step = self._trainer.state.global_step
        if step == self._counted:
            return
        if self._kept.over:
            raise _OverError
        self._check_place(step)
        self._boundary(step)

    def _track(self) -> None:
        """At the first batch, where all is built and the trainer's preparations are made: put back what was."""
        if self._tracked:
            return
        self._tracked = True
        trainer = self._trainer
        things = {
            "model": trainer.model,
            "optimizer": getattr(trainer.optimizer, "optimizer", trainer.optimizer),
            "scheduler": trainer.lr_scheduler,
            "loader": self._loader,
            "trainer": self._kept,
        }
        if scaler := trainer.accelerator.scaler:
            things["scaler"] = scaler
        if getattr(trainer.args, "sync_ref_model", False):  # TRL's: the reference is trained too, in its way
            things["reference"] = trainer.accelerator.unwrap_model(trainer.ref_model)
        trainer.model.train()  # as each step does: an evaluation at the start, which is not repeated, says eval()
        self._session.track(**things)
        loader = self._loader
        assert loader is not None
        if not isinstance(loader.dataset, IterableDataset) and loader.batch >= len(loader):
            loader.end_epoch()
        if self._kept.pending and not self._kept.over:  # what was cut is done again
            self._kept.pending = False
            trainer._maybe_log_save_evaluate(
                trainer._tr_loss, None, trainer.model, None, trainer.state.epoch, None, 0.0
            )
            self._kept.over = trainer.control.should_training_stop

    def _boundary(self, step: int) -> None:
        self._counted = step
        self._session.boundary(step)

    def _check_place(self, step: int) -> None:
        loader = self._loader
        assert loader is not None
        if isinstance(loader.dataset, IterableDataset):
            return
        accumulated = self._trainer.args.gradient_accumulation_steps
        epoch, update = divmod(step, -(-len(loader) // accumulated))
        if (loader.epoch, loader.batch) != (epoch, update * accumulated):
            raise SessionError(
                f"at step {step} the data is at batch {loader.batch} of epoch {loader.epoch}, and a resumed trainer "
                f"would look for batch {update * accumulated} of epoch {epoch}: was an epoch left early "
                "(should_epoch_stop)? That can't be resumed exactly"
            )

    def _evaluate(self, *given: Any, **named: Any) -> Any:
        """An evaluation has a boundary before it: a notice need not wait for its end, and it is done again."""
        trainer = self._trainer
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        swaps = callable(getattr(optimizer, "eval", None)) or trainer.args.fp16_full_eval or trainer.args.bf16_full_eval
        if self._tracked and not swaps:
            self._kept.pending = True
            self._session.boundary(trainer.state.global_step)
            self._kept.pending = False
        with self._session.phase("evaluating"):
            return self._plain["_evaluate"](*given, **named)

    def _finalize_training(self, *given: Any, **named: Any) -> Any:
        """All steps are done: that is in the bucket before the script goes on with what it has trained."""
        self._track()
        self._kept.over = True
        self._boundary(self._trainer.state.global_step)
        self._session.commit()
        return self._plain["_finalize_training"](*given, **named)

    def _load_from_checkpoint(self, folder: str, model: Any = None) -> None:
        if folder != self._folder:
            self._plain["_load_from_checkpoint"](folder, model)


class _Steps:
    """What the trainer takes its batches from."""

    def __init__(self, loader: ResumableLoader[Any], before: Any) -> None:
        self._loader, self._before = loader, before
        self.dataset, self.batch_size = loader.dataset, loader.batch_size
        if not isinstance(loader.dataset, IterableDataset):
            self.__class__ = _CountedSteps

    def __iter__(self) -> Iterator[Any]:
        yield from drawn(self._loader, self._before)
        if isinstance(self.dataset, IterableDataset):
            raise SessionError(
                f"the stream ended in epoch {self._loader.epoch} before max_steps: a Trainer's place in a later lap of "
                "a stream can't be told. Let the data set go on without end, or give it a length"
            )


class _CountedSteps(_Steps):
    """Of data with an end; a stream's loader must not look as if it had a length."""

    def __len__(self) -> int:
        return len(self._loader)


class _Log(TrainerCallback):  # type: ignore[misc]
    """What the trainer logs is the session's metrics; in an evaluation it says that this is no hang."""

    def __init__(self, session: FrameworkSession) -> None:
        self._session = session

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        told = without_times(given["logs"]).items()
        self._session.log(**{name: value for name, value in told if isinstance(value, int | float | str)})

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._session.beat()


class _OverError(Exception):
    """No step is left to be trained."""


def _refuse(trainer: Any) -> None:
    """Raises SessionError: something about this trainer can't be resumed exactly."""
    args = trainer.args
    wrong = {
        "several processes or GPUs: a session is one process with one GPU; set CUDA_VISIBLE_DEVICES to one": (
            args.world_size > 1 or args.n_gpu > 1
        ),
        "DeepSpeed: its optimizer's state is not torch's": trainer.is_deepspeed_enabled,
        "FSDP: its parameters are spread over processes": trainer.is_fsdp_enabled,
        "auto_find_batch_size: choose a batch size": args.auto_find_batch_size,
        "load_best_model_at_end: the checkpoint folders that it reads do not travel; evaluate behind train()": (
            args.load_best_model_at_end
        ),
        "ignore_data_skip: the place in the data is part of the state": args.ignore_data_skip,
        "enable_jit_checkpoint: the session saves at a notice": args.enable_jit_checkpoint,
        "push_to_hub in training: push behind train()": args.push_to_hub,
    }
    if found := [what for what, so in wrong.items() if so]:
        raise SessionError("this Trainer can't be resumed exactly with " + "; ".join(found))


def _skip_no_batches(plain: Any) -> Any:
    """Accelerate's way to a place in the data makes another loader of it; ours is at its place."""

    @functools.wraps(plain)
    def skip(dataloader: Any, num_batches: int = 0) -> Any:
        return dataloader if isinstance(dataloader, _Steps) else plain(dataloader, num_batches)

    return skip


trainer_module.skip_first_batches = _skip_no_batches(trainer_module.skip_first_batches)
