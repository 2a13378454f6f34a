"""A run file that changed between two starts: each key is taken from then on, or refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PretrainedConfig

from agent.config import Data, Model, RunConfig, Training, describe_fields
from agent.config.refusal import Section
from tests.llm.conftest import QWEN3, make_data, make_run
from workloads.errors import SettingsError
from workloads.stages.settings import DECISIONS, Settings, described, settings_of

DOCS = Path(__file__).parents[2] / "docs/changed-run-file.md"
RUN = make_run(model={"config": QWEN3}, data=make_data(), micro_batch=8, eval_every=100)
CONFIG = PretrainedConfig(hidden_size=32, num_hidden_layers=2)
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 32}
PARTS = {"vision": {"config": SIGLIP}, "language": {"config": QWEN3}, "connector": {"visual_words": 8}}
PICTURES = {"source": "gs://pictures", "tokenizer": {"train_vocab_size": 300}, "sequence_length": 32, "pictures": {}}
SEES = RunConfig.model_validate(
    RUN.model_dump(mode="json", exclude_unset=True)
    | {"workload": {"kind": "vlm"}, "model": PARTS, "data": PICTURES, "stages": [{"name": "a", "steps": 1000}]}
)
SHARES = RunConfig.model_validate(
    RUN.model_dump(mode="json", exclude_unset=True)
    | {
        "workload": {"kind": "arr-coc"},
        "model": {key: PARTS[key] for key in ("vision", "language")} | {"arr_coc": {"budgets": [64, 7]}},
        "data": {"source": "scenes:panes", "tokenizer": {"train_vocab_size": 300}},
    }
)
SECTIONS: dict[str, type[Section]] = {"model": Model, "data": Data, "training": Training}
LEAVES = [
    field.path
    for name, section in SECTIONS.items()
    for field in describe_fields(section, prefix=f"{name}.")
    if not field.section and "[]" not in field.path
] + ["data.pictures.mixture", "stages"]
OTHER: dict[str, Any] = {
    "model.name": "./moved",
    "model.config": QWEN3 | {"hidden_size": 64},
    "model.vision.name": "./moved",
    "model.vision.config": SIGLIP | {"hidden_size": 64},
    "model.language.name": "./moved",
    "model.language.config": QWEN3 | {"hidden_size": 64},
    "model.connector.kind": "mlp",
    "model.from": "gs://runs/other@7",
    "model.vision.from": "gs://runs/other@7",
    "model.language.from": "gs://runs/other@7",
    "model.connector.from": "gs://runs/other@7",
    "model.arr_coc.budgets": [64, 32],
    "model.arr_coc.regions": 8,
    "model.arr_coc.levels": [0, 1, 4, 9],
    "model.arr_coc.ways": "no_participatory",
    "model.arr_coc.reduction": "random",
    "model.arr_coc.width": 128,
    "model.arr_coc.heads": 8,
    "model.arr_coc.efficiency_weight": 0.02,
    "data.source": "gs://moved/text",
    "data.include": ["**/*.py"],
    "data.text_field": "content",
    "data.pictures.records": ["more.jsonl"],
    "data.pictures.eval_records": ["eval.jsonl"],
    "data.pictures.mixture": [{"records": ["a.jsonl"]}, {"records": ["b.jsonl"]}],
    "data.pictures.pack": False,
    "data.pictures.augment": "crop",
    "data.pictures.cache_gb": 3.0,
    "data.pictures.on_broken": "skip",
    "data.pictures.broken_limit": 3,
    "stages": [{"name": "a", "steps": 1000, "optimizer": "fresh"}],
    "data.tokenizer.name": "./tokenizer",
    "data.tokenizer.train_vocab_size": 310,
    "training.global_batch": 64,
    "training.micro_batch": 4,
    "training.max_steps": 2000,
    "training.schedule": "constant",
    "training.betas": [0.8, 0.9],
    "training.clip_norm": 0.5,
    "training.dtype": "bf16",
    "training.eval_every": 7,
}
"""A value that no default is; numbers that are not here are made larger by one, or by a half."""


def base(key: str) -> RunConfig:
    """A run file that can say `key`."""
    if key.startswith("model.arr_coc."):
        return SHARES
    return SEES if {"vision", "language", "connector", "pictures", "stages"} & set(key.split(".")) else RUN


def changed(key: str) -> RunConfig:
    """`base(key)` with another value of `key`."""
    data = base(key).model_dump(mode="json", exclude_unset=True)
    *above, last = key.split(".")
    section = data
    for part in above:
        section = section[part]
    before = settings_of(base(key))[key]
    if key in ("model.name", "model.language.name"):
        data["data"] = {key: value for key, value in data["data"].items() if key != "tokenizer"}
    if last in ("name", "kind"):
        section.clear()
    if last == "broken_limit":
        section["on_broken"] = "skip"
    section[last] = OTHER[key] if key in OTHER else before + (1 if isinstance(before, int) else 0.5 * before or 0.25)
    assert section[last] != before
    return RunConfig.model_validate(data)


def restarted(was: RunConfig, now: RunConfig, config: PretrainedConfig = CONFIG) -> Settings:
    """The settings of a second start, as a checkpoint of the first brings them back."""
    settings = Settings(now, described(config))
    saved = json.loads(json.dumps(Settings(was, described(CONFIG)).state_dict()))
    settings.load_state_dict(saved)
    assert settings.state_dict() == saved, "as all that is tracked must"
    settings.take()
    return settings


def test_every_key_of_model_data_training_and_stages_has_a_decision() -> None:
    assert sorted(DECISIONS) == sorted(LEAVES)


@pytest.mark.parametrize("key", LEAVES)
def test_a_changed_key_is_taken_with_a_mark_or_refused_by_its_name(key: str) -> None:
    was, other = base(key), changed(key)
    if DECISIONS[key] == "refused":
        with pytest.raises(SettingsError, match=rf"{key} was .* and is .*start a new run under another run_id"):
            restarted(was, other)
        return
    settings = restarted(was, other)
    assert key in settings.told(7)
    assert key in settings.marked()["changed"]
    assert settings.marked() == {}


def test_a_run_file_as_it_was_has_no_mark() -> None:
    settings = restarted(RUN, RUN)
    assert (settings.told(7), settings.marked()) == ("", {})


def test_another_model_is_refused_by_the_key_that_differs() -> None:
    other = PretrainedConfig(hidden_size=32, num_hidden_layers=3)
    with pytest.raises(SettingsError, match=r"model\.config\.num_hidden_layers was 2 and is 3"):
        restarted(RUN, RUN, other)


def test_a_mark_that_a_preemption_left_unwritten_is_written_by_the_next_vm() -> None:
    other = changed("training.clip_norm")
    between = restarted(RUN, other)  # saved again before its first step was done

    third = Settings(other, described(CONFIG))
    third.load_state_dict(json.loads(json.dumps(between.state_dict())))
    third.take()
    assert third.marked() == {"changed": {"training.clip_norm": {"was": 1.0, "is": 0.5}}}

    back = Settings(RUN, described(CONFIG))
    back.load_state_dict(json.loads(json.dumps(between.state_dict())))
    back.take()
    assert back.marked() == {}


def test_the_page_on_changed_run_files_says_what_the_trainer_does() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows.keys() == DECISIONS.keys()
    for key, decision in DECISIONS.items():
        begins = {"taken": "taken", "refused": "refused", "same tokens": ("taken where", "as `data"), "same model": ""}
        assert rows[key].startswith(begins[decision]), key
