"""No key of the run file is accepted and ignored: somebody reads it, or `spot check` refuses it."""

from __future__ import annotations

import ast
from pathlib import Path

from agent.config import RunConfig, describe_fields
from agent.config.program import tracking_environment

ROOT = Path(__file__).parents[3]
BY_ITSELF = {
    "machine.spread": "Machine.placement",
    "stages[].machine.spread": "Machine.placement",
    "stages[].checkpoint_every": "cadence_at",
    "ablations.most": "Ablations.refusals",
    "tracking.wandb.entity": "tracking_environment",
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


def test_a_program_that_logs_to_wandb_goes_on_in_the_run_of_that_name() -> None:
    run = RunConfig.model_validate(
        {
            "run_id": "mine",
            "workload": {"kind": "script", "command": ["python", "train.py"]},
            "checkpoint": {"bucket": "gs://runs"},
            "tracking": {"wandb": {"project": "p", "entity": "team"}},
        }
    )
    assert tracking_environment(run) == {
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "team",
        "WANDB_RUN_ID": "mine",
        "WANDB_RESUME": "allow",
    }
