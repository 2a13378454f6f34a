"""No key of the run file is accepted and ignored: somebody reads it, or `spot check` refuses it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from agent.config import RunConfig, describe_fields
from agent.config.program import tracking_environment
from agent.run.trackers import commands

ROOT = Path(__file__).parents[3]
BY_ITSELF = {
    "stages[].checkpoint_every": "cadence_at",
    "ablations.most": "Ablations.refusals",
    "tracking.wandb.sender": "RunConfig.sends_itself",
    **{f"model.{part}from": "Model.starts" for part in ("", "vision.", "language.", "connector.")},
}
"""Read inside agent/config, where that is all that there is to do."""
REFUSED = ("price_cap",)
"""Refused with their section (infra/operate/unread.py)."""


def read_somewhere() -> set[str]:
    """The names of attributes that the code outside agent/config reads."""
    return {
        node.attr
        for top in ("agent", "infra", "workloads")
        for file in (ROOT / top).rglob("*.py")
        if not file.is_relative_to(ROOT / "agent/config")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }


def test_every_key_of_the_run_file_is_read_or_refused() -> None:
    read = read_somewhere()
    unread = {
        field.path
        for field in describe_fields()
        if field.path.split(".")[-1].removesuffix("[]") not in read
        and field.path.split(".")[0].removesuffix("[]") not in REFUSED
    }
    assert unread == BY_ITSELF.keys(), "wire it, or refuse it in infra/operate/unread.py"


def test_a_program_that_logs_to_wandb_goes_on_in_the_run_of_that_name_and_the_agent_sends_nothing() -> None:
    values: dict[str, Any] = {
        "run_id": "mine",
        "workload": {"kind": "script", "command": ["python", "train.py"]},
        "checkpoint": {"bucket": "gs://runs"},
        "tracking": {"wandb": {"project": "p", "entity": "team"}},
    }
    sent = RunConfig.model_validate(values)
    assert tracking_environment(sent) == {}, "two senders would be two runs"
    assert "--project p --entity team" in " ".join(commands(sent, "gs://runs/mine", Path("d"))["wandb"])
    values["tracking"]["wandb"]["sender"] = "program"
    run = RunConfig.model_validate(values)
    assert commands(run, "gs://runs/mine", Path("d")) == {}
    assert tracking_environment(run) == {
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "team",
        "WANDB_RUN_ID": "mine",
        "WANDB_RESUME": "allow",
    }
