"""The command `spot ablate`: it reads its options, and says how it went."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from agent.config import RunConfig
from agent.store import StoreError
from agent.store.formats import NewerFormatError
from infra.operate.run_file import BAD_RUN_FILE, RunFile, load
from infra.operate.unread import unread

EXPERIMENT_FAILED = 3
"""Exit status: an experiment can't go on by itself; the others are done."""


def register(app: typer.Typer) -> None:
    app.command()(ablate)


def ablate(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="How many train side by side. Default: as many as there are cores for.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Of each experiment; with another number its last bits may differ.")
    ] = 1,
    preempt_every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Take each one's VM away so often, as `spot run` does: 2m.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take each one's VM away as a script says, as `spot run` does.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="What the table shows; the first one is plotted. Default: losses and such.")
    ] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Follow what `spot deploy` has begun, by the bucket alone; starts nothing.")
    ] = False,
    table: Annotated[bool, typer.Option("--table", help="Only the table, of what there is now.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: what there is is moved aside, not deleted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table for other programs, and nothing else.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all of it. Default: out/RUN_ID; with --cloud out/RUN_ID-cloud.")
    ] = None,
) -> None:
    """Train the experiments of a run file's `ablations` side by side, and compare them; again: go on where they were.

    What is done is not trained again. Ctrl-C saves all. Exit status: docs/commands.md.
    """
    run = load(run_file, to_train=True)
    if cloud and not run.checkpoint.bucket.startswith("gs://"):
        raise typer.BadParameter(f"--cloud: {run.checkpoint.bucket} is no bucket in the cloud")
    if (cloud or table) and (fresh or preempt_every or events or at_once):
        raise typer.BadParameter("--fresh, --at-once and what takes VMs away are for experiments that are trained here")
    _refuse(run, run_file)
    strikes = strikes_of(preempt_every, events, bucket=run.checkpoint.bucket)
    from infra.local.out_folder import CannotRun  # noqa: PLC0415, only this command needs the local cloud
    from infra.operate.experiments.ablation import Ablation  # noqa: PLC0415

    again = f"spot ablate {run_file}" + (" --cloud" if cloud else "") + (f" --out {out}" if out else "")
    folder = out or Path("out") / f"{run.run_id}{'-cloud' if cloud else ''}"
    if table and not cloud and not folder.is_dir():
        typer.echo(
            f"no experiment of {run.run_id} has begun here\n    fix: spot ablate {run_file} begins them", err=True
        )
        raise typer.Exit(1)
    ablation = Ablation(run, folder, again, cloud, quiet=as_json)
    status = 0
    try:
        if cloud and not table:
            ablation.follow()
        elif not table:
            room = at_once or max(1, len(os.sched_getaffinity(0)) // threads)
            status = ablation.train(at_once=room, threads=threads, strikes=strikes, fresh=fresh)
        rows = ablation.rows()
        made = ablation.write(rows, metric or [])
    except (CannotRun, StoreError, NewerFormatError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(made, nl=False)
    if status:
        typer.echo(f"to go on: {again}", err=True)
    raise typer.Exit(status or (EXPERIMENT_FAILED if any(row.failed for row in rows) else 0))


def strikes_of(preempt_every: str | None, events: Path | None, *, bucket: str) -> list[str]:
    """The options for `spot run`, which would refuse them the same way. Raises BadParameter."""
    from infra.local.strikes import script_of  # noqa: PLC0415

    try:
        script_of(preempt_every, events, bucket=bucket)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return [
        *(("--preempt-every", preempt_every) if preempt_every else ()),
        *(("--events", str(events.resolve())) if events else ()),
    ]


def _refuse(run: RunConfig, run_file: Path) -> None:
    """A run file without experiments, or with one that nothing could train."""
    said = ""
    if run.ablations is None:
        said = f"{run_file}: it has no ablations\n    fix: add ablations: {{grid: {{training.seed: [1, 2, 3]}}}}"
    for experiment in run.experiments():
        for _, reason, fix in unread(experiment):
            said = said or f"{run_file}: experiment {experiment.run_id}: {reason}\n    fix: {fix}"
    if said:
        typer.echo(said, err=True)
        raise typer.Exit(BAD_RUN_FILE)
