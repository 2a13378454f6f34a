"""The command `spot rehearse`: reads its options, and says how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from infra.operate.run_file import RunFile, load


def register(app: typer.Typer) -> None:
    app.command()(rehearse)


def rehearse(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    steps: Annotated[int, typer.Option(min=8, help="Steps of each of the three runs.")] = 24,
    drawn: Annotated[int, typer.Option(min=0, help="Strikes at drawn moments, besides the chosen ones.")] = 2,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    ignore: Annotated[list[str] | None, typer.Option(help="A variable that may differ, such as a cache.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for all records. Default: out/rehearse-RUN_ID.")] = None,
) -> None:
    """Prove on this machine that your own training resumes exactly: cut it at many moments, compare with undisturbed.

    Exit status: 0 exact; 1 it differs, with the first difference and its likeliest cause; 2 it can't be rehearsed.
    """
    run = load(run_file)
    from infra.operate.rehearse import report  # noqa: PLC0415, only this command needs the local cloud
    from infra.operate.rehearse.rehearsal import STATUS, Wishes  # noqa: PLC0415
    from infra.operate.rehearse.rehearsal import rehearse as play  # noqa: PLC0415

    told = Console(stderr=True)
    folder = out or Path("out") / f"rehearse-{run.run_id}"
    verdict = play(
        run,
        run_file,
        out=folder,
        wishes=Wishes(steps, drawn, seed, tuple(ignore or ())),
        say=lambda text: told.print(Text(text, style="dim")),
    )
    if as_json:
        typer.echo(report.as_json(verdict))
    else:
        report.show(Console(), verdict, folder)
    raise typer.Exit(STATUS[verdict.outcome])
