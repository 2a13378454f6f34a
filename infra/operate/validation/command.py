"""The command `spot validate`: it reads its options, and says how it went."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from agent.config import RunConfig, RunFileError, parse_seconds
from infra.operate.experiments.command import strikes_of
from infra.operate.run_file import BAD_RUN_FILE, RunFile, load, tell

_GIT_S = 60.0
_SHORT = 8
_LONGEST_ID = 40


def register(app: typer.Typer) -> None:
    app.command()(validate)


def validate(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    thresholds: Annotated[
        Path, typer.Option(metavar="FILE", help="What its metrics must come to: docs/validation.md.")
    ],
    commit: Annotated[
        str, typer.Option(metavar="SHA", help="Of what is checked out: the run is its own. Default: begin anew.")
    ] = "",
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="What is not complete by then is stopped.")] = "2h",
    max_cost: Annotated[
        float | None, typer.Option(min=0.01, metavar="USD", help="Its VMs may cost so much, by machine.hourly_usd.")
    ] = None,
    cloud: Annotated[bool, typer.Option("--cloud", help="On Spot VMs, by spot deploy; it is destroyed again.")] = False,
    clean_up: Annotated[
        bool, typer.Option("--clean-up", help="With --cloud: only take away what one that was killed has left.")
    ] = False,
    preempt_every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Take its VM away so often, as `spot run` does: 2m.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take it away as a script says, as `spot run` does.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of what is trained here. Default: as for `spot run`.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The report, as markdown. Default: report.md in --out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result for other programs, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for all of it. Default: out/validate-RUN_ID.")] = None,
) -> None:
    """Train a run, hold its metrics against thresholds, write a report, and leave nothing running.

    A preemption is no failure. Exit status: 0 passed; 3 it gave up; 6 a threshold is not met; 7 a metric is missing;
    8 it took too long; 9 it cost too much.
    """
    described = load(run_file, to_train=True)
    try:
        from infra.operate.validation.thresholds import read_thresholds  # noqa: PLC0415

        wanted = read_thresholds(thresholds)
        seconds = parse_seconds(timeout)
    except RunFileError as error:
        tell(error)
        raise typer.Exit(BAD_RUN_FILE) from None
    except ValueError as error:
        raise typer.BadParameter(f"--timeout: {error}") from None
    if cloud and (preempt_every or events):
        raise typer.BadParameter("what takes VMs away is for a run that is trained here; spot drill takes a real one")
    if cloud and not commit:
        raise typer.BadParameter("--cloud takes --commit: the run is one of its own, and found again by it")
    if clean_up and not cloud:
        raise typer.BadParameter("--clean-up takes --cloud: what is trained here ends with its command")
    strikes = strikes_of(preempt_every, events, bucket=described.checkpoint.bucket)
    run = _to_validate(described, run_file, commit=commit, max_cost=max_cost, cloud=cloud)
    from infra.operate.validation import course  # noqa: PLC0415, only this command needs the local cloud

    again = f"spot validate {run_file} --thresholds {thresholds}" + (f" --commit {commit}" if commit else "")
    folder = out or Path("out") / f"validate-{run.run_id}"
    wishes = course.Wishes(
        commit=commit, timeout=seconds, cloud=cloud, strikes=strikes, threads=threads, report=report, again=again
    )
    if clean_up:
        raise typer.Exit(course.clean_up(run, folder))
    raise typer.Exit(course.run(run, wanted, folder, wishes, as_json=as_json))


def _to_validate(run: RunConfig, run_file: Path, *, commit: str, max_cost: float | None, cloud: bool) -> RunConfig:
    """The run under a name of its own, bounded by the agent itself: it holds where nobody looks any more."""
    if run.ablations is not None:
        typer.echo(f"{run_file}: it has ablations\n    fix: validate one run; spot ablate compares several", err=True)
        raise typer.Exit(BAD_RUN_FILE)
    data = run.model_dump(mode="json", exclude_unset=True)
    if commit:
        data["run_id"] = _named(run.run_id, _checked_out(commit, run_file))
    if max_cost is not None:
        data["supervision"] = {**data.get("supervision", {}), "max_cost": max_cost}
    try:
        found = RunConfig.model_validate(data)
    except ValidationError as error:
        context = error.errors(include_url=False)[0].get("ctx", {})
        typer.echo(f"--max-cost: {context.get('reason', error)}\n    fix: {context.get('fix', '')}", err=True)
        raise typer.Exit(BAD_RUN_FILE) from None
    if cloud:
        from infra.stacks.deployment import Deployment, NotDeployable  # noqa: PLC0415

        try:
            Deployment.of(found)
        except NotDeployable as error:
            typer.echo(f"{run_file}: {error}", err=True)
            raise typer.Exit(BAD_RUN_FILE) from None
    return found


def _named(run_id: str, commit: str) -> str:
    """RUN_ID-COMMIT, both of them short enough for a name."""
    return f"{run_id[: _LONGEST_ID - _SHORT - 1].rstrip('-')}-{commit[:_SHORT]}"


def _checked_out(commit: str, run_file: Path) -> str:
    """The whole name of `commit`, which is what is checked out around the run file. Else exit status 2."""
    here = run_file.absolute().parent
    names = [_git(here, "rev-parse", "--verify", "--quiet", f"{each}^{{commit}}") for each in (commit, "HEAD")]
    if not names[0] or names[0] != names[1]:
        is_there = (
            f"commit {commit} is not what is checked out in {here}" if names[1] else f"{here} is in no repository"
        )
        typer.echo(f"{is_there}\n    fix: git checkout {commit}", err=True)
        raise typer.Exit(BAD_RUN_FILE)
    if changed := _git(here, "status", "--porcelain", "--untracked-files=no"):
        since = f"commit {commit} has been changed since: {changed.splitlines()[0].strip()}"
        typer.echo(f"{since}\n    fix: commit it, or put it back", err=True)
        raise typer.Exit(BAD_RUN_FILE)
    return names[0]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_S, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
