"""Program: what a run file says is started, where, and with what in its environment."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.config.run import RunConfig


def trainer_command(run: RunConfig, run_file: Path) -> list[str]:
    """The command line that trains `run`."""
    kind, command = run.workload.kind, list(run.workload.command)
    if kind == "script" and command[0] in ("python", "python3"):
        return [sys.executable, *command[1:]]
    if kind in ("script", "command"):
        return command
    module = {"llm": "workloads.llm.train", "vlm": "workloads.vlm.train", "arr-coc": "workloads.arr_coc.train"}
    return [sys.executable, "-P", "-m", module[kind], str(run_file)]


def not_promised(run: RunConfig) -> str:
    """What a run file that can be used leaves open, for people; empty where it leaves nothing."""
    if run.workload.kind != "command" or run.workload.complete_when:
        return ""
    return (
        "that a save is whole is known of Hugging Face, Lightning, Accelerate, DeepSpeed, torch DCP and Megatron-LM, "
        "of torch.save and safetensors files, and of a program that calls `spot saved` after each save. Any other "
        "folder only has to stand still for a second, which does not promise it: write workload.complete_when, such as "
        '"*/done", or call `spot saved` (docs/what-programs.md)'
    )


def tracking_environment(run: RunConfig) -> dict[str, str]:
    """What W&B's own library reads: a program that calls `wandb.init()` goes on in the run of that name. The key, where
    there is one, is in the agent's own environment."""
    wandb = run.tracking.wandb if run.tracking is not None else None
    if wandb is None:
        return {}
    entity = {"WANDB_ENTITY": wandb.entity} if wandb.entity else {}
    return {"WANDB_PROJECT": wandb.project, "WANDB_RUN_ID": run.run_id, "WANDB_RESUME": "allow", **entity}


def trainer_folder(run: RunConfig, run_file: Path) -> Path:
    """The folder that the trainer starts in."""
    return run_file.absolute().parent if run.workload.kind == "script" else Path.cwd()
