"""The course of a validation: its folder, its launch, its report; nothing is left running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from agent.config import RunConfig, run_file_text
from agent.store import StoreError
from infra.local.asked_to_stop import heard
from infra.local.out_folder import CannotRun
from infra.local.run import move_all_aside
from infra.operate.board import Board
from infra.operate.console import console
from infra.operate.validation.launches import AtHome, InTheCloud, Launch, NotCleanedUp
from infra.operate.validation.report import as_json as json_of
from infra.operate.validation.report import markdown, pictures_of
from infra.operate.validation.thresholds import Threshold
from infra.operate.validation.validation import STATUS, Validation

_CANNOT = 1


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The command's options. `timeout` in seconds; `again`: the command itself."""

    commit: str
    timeout: float
    cloud: bool
    strikes: Sequence[str]
    threads: int | None
    report: Path | None
    again: str


def run(run: RunConfig, thresholds: Mapping[str, Threshold], folder: Path, wishes: Wishes, *, as_json: bool) -> int:
    """Returns the exit status."""
    board = Board({run.run_id: run.run_id}, Console(stderr=True, highlight=False) if as_json else console())
    try:
        launch = _launch(run, folder, wishes, board)
    except CannotRun as error:
        typer.echo(str(error), err=True)
        return _CANNOT
    with heard() as asked, board:
        validated = Validation(launch, run.run_id, thresholds, wishes.timeout, asked, board).validate()
    status = asked.status if validated.verdict == "stopped" else STATUS[validated.verdict]
    report = wishes.report or folder / "report.md"
    try:
        pictures = pictures_of(launch.store(), report.parent / "pictures")
    except StoreError:
        pictures = []
    links = [str(path.relative_to(report.parent)) for path in pictures]
    text = markdown(run.run_id, validated, commit=wishes.commit, again=wishes.again, pictures=links)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(text)
    made = json_of(run.run_id, validated, commit=wishes.commit, status=status)
    report.with_suffix(".json").write_text(made + "\n")
    typer.echo(made if as_json else text)
    if not as_json:
        typer.echo(f"{report}, and .json beside it")
    return status


def clean_up(run: RunConfig, folder: Path) -> int:
    """Take away what a validation in the cloud that was killed has left. Returns the exit status."""
    run_file = _written(run, folder)
    try:
        InTheCloud(run, run_file, folder / "cdktf.out", typer.echo).clean_up_after_another()
    except NotCleanedUp as error:
        typer.echo(str(error), err=True)
        return _CANNOT
    return 0


def _launch(run: RunConfig, folder: Path, wishes: Wishes, board: Board) -> Launch:
    run_file = _written(run, folder)
    if wishes.cloud:
        return InTheCloud(run, run_file, (folder / "cdktf.out").resolve(), board.say)
    at_home = (folder / "run").resolve()
    if not wishes.commit:  # what is checked out may have changed since
        move_all_aside(run, at_home)
    return AtHome(run, run_file, at_home, wishes.threads, wishes.strikes)


def _written(run: RunConfig, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run_file = (folder / "run.yaml").resolve()
    run_file.write_text(run_file_text(run))
    return run_file
