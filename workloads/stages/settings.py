"""Settings: what the run file says of the training, kept with each checkpoint, so that no change goes unnoticed.

A run file may change between two starts. Each key of it is taken from that step on, with a mark in the metrics of the
first step that it holds for, or refused with what to do. `DECISIONS` says which.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from transformers import PretrainedConfig

from agent.config import RunConfig
from workloads.errors import SettingsError

Decision = Literal["taken", "same model", "same tokens", "refused"]

DECISIONS: dict[str, Decision] = {
    "model.name": "same model",
    "model.config": "same model",
    "model.from": "same model",  # the weights that it began with
    "model.vision.name": "same model",
    "model.vision.config": "same model",
    "model.vision.from": "same model",
    "model.language.name": "same model",
    "model.language.config": "same model",
    "model.language.from": "same model",
    "model.connector.kind": "same model",
    "model.connector.merge": "same model",
    "model.connector.visual_words": "same model",
    "model.connector.from": "same model",
    "model.arr_coc.budgets": "taken",
    "model.arr_coc.whole_steps": "taken",
    "model.arr_coc.regions": "same model",
    "model.arr_coc.levels": "same model",
    "model.arr_coc.ways": "same model",
    "model.arr_coc.reduction": "same model",
    "model.arr_coc.width": "same model",
    "model.arr_coc.layers": "same model",
    "model.arr_coc.heads": "same model",
    "model.arr_coc.score_width": "same model",
    "model.arr_coc.efficiency_weight": "taken",
    "model.arr_coc.diversity_weight": "taken",
    "model.arr_coc.noise": "taken",
    "data.source": "same tokens",
    "data.include": "same tokens",
    "data.text_field": "same tokens",
    "data.tokenizer.name": "same tokens",
    "data.tokenizer.train_vocab_size": "same tokens",
    "data.pictures.records": "same tokens",
    "data.pictures.eval_records": "taken",
    "data.pictures.mixture": "same tokens",
    "data.pictures.pack": "same tokens",
    "data.pictures.augment": "same tokens",
    "data.pictures.workers": "taken",
    "data.pictures.reads_at_once": "taken",
    "data.pictures.cache_gb": "taken",
    "data.pictures.on_broken": "taken",
    "data.pictures.broken_limit": "taken",
    "data.sequence_length": "refused",
    "data.eval_fraction": "refused",
    "training.global_batch": "taken",  # the data's position is in samples, so that none is left out or seen twice
    "training.micro_batch": "taken",
    "training.max_steps": "taken",
    "training.learning_rate": "taken",
    "training.schedule": "taken",
    "training.warmup_steps": "taken",
    "training.min_learning_rate_ratio": "taken",
    "training.weight_decay": "taken",
    "training.betas": "taken",
    "training.clip_norm": "taken",
    "training.seed": "refused",
    "training.dtype": "taken",
    "training.eval_every": "taken",
    "training.eval_batches": "taken",
    "stages": "taken",  # those that are done or under way are held against the checkpoint: workloads/stages/stages.py
}
"""taken: holds from the restored step on. same model, same tokens: taken where what comes of it is the same (a folder
that moved), else refused: by the model's configuration here, by the data's fingerprint in `Batches`. refused: the run
would be another one."""

_OF_NO_MATTER = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Keys of a model's configuration that say where it came from, or what is decided elsewhere."""

Change = tuple[Any, Any]
"""Was, is."""


class Settings:
    """Track it with the rest, `session.track(..., settings=settings)`, then `take()`: `changes` is what holds from here
    on. Until then it gives back what was restored, word for word, as all that is tracked must."""

    def __init__(self, run: RunConfig, model: dict[str, Any], *, key: str = "model.config") -> None:
        """`model`: what makes it the same model, by the keys below `key` of the run file."""
        self.now = settings_of(run)
        self.model, self._key = model, key
        self.changes: dict[str, Change] = {}
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The changes too: a VM may go before the first step that they hold for is done, and marked."""
        if self._restored is not None:
            return self._restored
        return {
            "run_file": self.now,
            "model": self.model,
            "unmarked": {key: list(change) for key, change in self.changes.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = state

    def take(self) -> None:
        """Compare with what the checkpoint was made with, if there was one.

        Raises:
            SettingsError: what changed makes another run.
        """
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        was = state["run_file"]
        changed = {key: (was[key], now) for key, now in self.now.items() if key in was and was[key] != now}
        refused = [
            f"{key} was {_shown(was)} and is {_shown(now)}"
            for key, (was, now) in changed.items()
            if DECISIONS[key] == "refused"
        ]
        theirs = state["model"]  # a key that only one version of transformers has is no change of the run file
        refused += [
            f"{self._key}.{key} was {_shown(theirs[key])} and is {_shown(now)}"
            for key, now in self.model.items()
            if key in theirs and theirs[key] != now
        ]
        if refused:
            raise SettingsError(
                f"the run file was changed: {'; '.join(refused)}. Put back what the run was started with, or start a "
                f"new run under another run_id"
            )
        before = {key: (first, self.now.get(key)) for key, (first, _) in state["unmarked"].items()}
        self.changes = {key: change for key, change in (changed | before).items() if change[0] != change[1]}

    def marked(self) -> dict[str, Any]:
        """What to write into the metrics of the step that is done: {"changed": ...}, and only once."""
        changes, self.changes = self.changes, {}
        return {"changed": {key: {"was": was, "is": now} for key, (was, now) in changes.items()}} if changes else {}

    def told(self, step: int) -> str:
        """The changes in words; empty without any."""
        changes = ", ".join(f"{key} {_shown(now)} (was {_shown(was)})" for key, (was, now) in self.changes.items())
        return f"the run file was changed; from step {step} on: {changes}" if changes else ""


def described(config: PretrainedConfig) -> dict[str, Any]:
    """What a configuration of transformers says of its model, as JSON."""
    said = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in said.items() if key not in _OF_NO_MATTER}


def settings_of(run: RunConfig) -> dict[str, Any]:
    """Each key of `DECISIONS` with its value, as JSON."""
    data = run.model_dump(mode="json", include={"model", "data", "training"})
    trained = {"name", "steps", "train", "optimizer"}  # machine and cadence are the agent's
    data["stages"] = [stage.model_dump(mode="json", include=trained) for stage in run.stages]
    found = {}
    for key in DECISIONS:
        value: Any = data
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[key] = value
    return found


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else "null" if value is None else str(value)
