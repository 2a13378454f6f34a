"""Program: what a run file says is started, where, and with what in its environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config.run import RunConfig
from agent.config.sections import ON_THEIR_OWN

PYTHONS = ("python", "python3")


@dataclass(frozen=True)
class Program:
    """What is started: `command`, in `folder`, with `env` besides what the agent has in its own."""

    command: list[str]
    folder: Path
    env: Mapping[str, str]


def program_of(run: RunConfig, run_file: Path, *, environment: Path | None = None) -> Program:
    """The program of a run whose code is a folder here. `environment`: the program's own, else the agent's is its."""
    return Program(
        trainer_command(run, run_file, environment=environment),
        trainer_folder(run, run_file),
        tracking_environment(run) | search_path(run, environment=environment) | run.workload.env,
    )


def trainer_command(run: RunConfig, run_file: Path, *, environment: Path | None = None) -> list[str]:
    """The command line that trains `run`."""
    kind, command = run.workload.kind, list(run.workload.command)
    if kind == "script" and environment is None and command[0] in PYTHONS:
        return [sys.executable, *command[1:]]
    if kind in ON_THEIR_OWN:
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


def search_path(run: RunConfig, *, environment: Path | None = None) -> dict[str, str]:
    """Where programs are found: first in the environment that has the session. A launcher in front of a script
    (`torchrun`, `accelerate`, `bash`) starts the same Python then as the script alone. `spot` is always found."""
    if run.workload.kind not in ON_THEIR_OWN:
        return {}
    agent = str(Path(sys.executable).parent)
    there = os.environ.get("PATH", os.defpath)
    if environment is not None:
        return {"PATH": f"{environment / 'bin'}:{there}", "VIRTUAL_ENV": str(environment)}
    if run.workload.kind == "script":
        return {"PATH": f"{agent}:{there}"}
    return {"PATH": f"{there}:{agent}"}


def tracking_environment(run: RunConfig) -> dict[str, str]:
    """What W&B's own library reads: a program that calls `wandb.init()` goes on in the run of that name. The key, where
    there is one, is in the agent's own environment. None where the agent sends."""
    wandb = run.tracking.wandb if run.tracking is not None else None
    if wandb is None or not run.sends_itself:
        return {}
    entity = {"WANDB_ENTITY": wandb.entity} if wandb.entity else {}
    return {"WANDB_PROJECT": wandb.project, "WANDB_RUN_ID": run.run_id, "WANDB_RESUME": "allow", **entity}


def trainer_folder(run: RunConfig, run_file: Path) -> Path:
    """The folder that the trainer starts in: the code's."""
    if run.workload.kind not in ON_THEIR_OWN:
        return Path.cwd()
    code = run.workload.code
    return Path(code) if code is not None and not run.workload.packed else run_file.absolute().parent


def with_code(run: RunConfig, code: str) -> RunConfig:
    """`run` with its code elsewhere: at the address of what it was packed to, or where it was unpacked."""
    return run.model_copy(update={"workload": run.workload.model_copy(update={"code": code})})


def with_own_paths(run: RunConfig, code: Path) -> RunConfig:
    """`run` on this machine, where its code is in folder `code`: the checkpoint folder is absolute then."""
    saves = run.workload.checkpoint_dir
    if saves is None or saves.is_absolute():
        return run
    return run.model_copy(update={"workload": run.workload.model_copy(update={"checkpoint_dir": code / saves})})
