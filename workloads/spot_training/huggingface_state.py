"""A Hugging Face trainer's own state, and its callbacks': what of it a session keeps beside the model."""

from __future__ import annotations

import json
from typing import Any

from spot_training.attributes import Attributes
from spot_training.link import SessionError
from transformers.trainer_callback import ExportableState

_CARRIED = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step", "current_flos")
_GENERATED = ("_buffered_inputs",)
"""What TRL's trainers have made for several updates: where it can't be kept, that is told, not passed over."""
_DERIVED = ("_signature_columns",)
"""What the trainer makes of the model when it is first asked, in the order of a set: another in each process."""
_PLACE = (
    "epoch", "global_step", "num_input_tokens_seen", "total_flos", "best_metric", "best_global_step", "logging_steps",
    "eval_steps", "save_steps", "train_batch_size",
)  # fmt: skip
"""Of `TrainerState`, as the trainer itself keeps it; all else follows from the arguments."""
_TIMES = ("_runtime", "_per_second", "step_time")


def without_times(logs: dict[str, Any]) -> dict[str, Any]:
    """What was logged, but for what it took: that is the machine's, not the run's, and another in each life."""
    return {name: value for name, value in logs.items() if not name.endswith(_TIMES)}


class Kept:
    """The trainer's own state, and its callbacks'."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.pending = False
        """An evaluation, and what follows it, is still to be done."""
        self.over = False
        """No step is left."""
        self._history: list[str] = []
        self._attributes: Attributes | None = None
        self._objects: dict[str, Any] = {}

    def look(self) -> None:
        """From here on attributes of the trainer and of callbacks that change are found."""
        callbacks = self._trainer.callback_handler.callbacks
        self._exportable = {
            f"{place}.{type(one).__name__}": one
            for place, one in enumerate(callbacks)
            if isinstance(one, ExportableState)
        }
        own = {
            f"{place}.{type(one).__name__}": one
            for place, one in enumerate(callbacks)
            if not isinstance(one, ExportableState) and not type(one).__module__.startswith(("transformers.", "spot_"))
        }
        self._objects = {"trainer": self._trainer} | own
        self._attributes = Attributes(self._objects, without=_DERIVED)
        self._attributes.changing |= {("trainer", name) for name in _CARRIED}
        self._attributes.changing |= {("trainer", name) for name in _GENERATED if hasattr(self._trainer, name)}

    def state_dict(self) -> dict[str, Any]:
        """A few dozen microseconds."""
        assert self._attributes is not None
        self._attributes.scan()
        state, control = self._trainer.state, self._trainer.control
        return {
            "state": {name: getattr(state, name) for name in _PLACE},
            "history": self._history_text(state.log_history),
            "control": control.state()["args"],
            "callbacks": {name: one.state()["attributes"] for name, one in self._exportable.items()},
            "attributes": self._attributes.values(),
            "pending": self.pending,
            "over": self.over,
        }

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        assert self._attributes is not None
        trainer = self._trainer
        for name, value in kept["state"].items():
            setattr(trainer.state, name, value)
        trainer.state.log_history = [json.loads(line) for line in kept["history"].splitlines()]
        for name, value in kept["control"].items():
            setattr(trainer.control, name, value)
        if kept["callbacks"].keys() != self._exportable.keys():
            raise SessionError(
                f"the checkpoint was written with the callbacks {sorted(kept['callbacks'])}, and the trainer has "
                f"{sorted(self._exportable)} now: put them back as they were, or give the changed run a new run_id"
            )
        for name, attributes in kept["callbacks"].items():
            for attribute, value in attributes.items():
                setattr(self._exportable[name], attribute, value)
        self._attributes.put(kept["attributes"])
        self.pending, self.over = kept["pending"], kept["over"]

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("it holds the trainer, with its model")

    def _history_text(self, entries: list[dict[str, Any]]) -> str:
        """One line an entry. Those before the newest two are not written anew."""
        known = min(len(self._history), max(0, len(entries) - 2))
        self._history = self._history[:known] + [
            json.dumps(without_times(entry), default=float) for entry in entries[known:]
        ]
        return "\n".join(self._history)
