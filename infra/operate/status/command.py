"""The commands `spot status` and `spot ls`: they read their options, and show what the bucket says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from agent.config.legs import ends_of
from agent.store import StoreError, Unavailable, open_store
from agent.store.formats import NewerFormatError
from infra.operate.console import console
from infra.operate.status.places import NoSuchRun, Place, local_runs, place_of, runs_in
from infra.operate.status.standing import Reader, Standing
from infra.operate.status.view import draw, table_of

_EVERY_S = 5.0
_HOME = "out"


def register(app: typer.Typer) -> None:
    for command in (status, ls):
        app.command()(command)


def status(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run file, gs://BUCKET/PREFIX/RUN_ID, or a folder of `spot run`.")
    ],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every 5 s, until Ctrl-C or its end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs; null is what is not known.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder of `spot run` to look into. Default: out/RUN_ID.")
    ] = None,
) -> None:
    """How far a run is, by its bucket alone: step, rate, time to the end, loss, what is safe, what happened to it.

    A run file with a section `cloud` is looked for in the cloud, any other one at home, where `spot run` keeps it;
    --out looks at home.
    """
    with _told():
        place = place_of(run, out=out)
        reader = _reader(place)
        first = reader.standing()
        if as_json:
            typer.echo(json.dumps(asdict(first)))
        if first.state == "not begun":
            _say_not_begun(place, run, as_json=as_json)
        if as_json:
            return
        if watch:
            _watch(reader, place, first)
        else:
            console().print(draw(first, place.name))


def ls(
    where: Annotated[
        str, typer.Argument(metavar="[gs://BUCKET/PREFIX | FOLDER]", help="A bucket, or a folder of this machine.")
    ] = _HOME,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """The runs in a bucket, or, without one, those of `spot run` below `out`."""
    with _told():
        url = where.rstrip("/")
        if "://" not in url and where != _HOME and not Path(where).is_dir():
            raise NoSuchRun(f"there is no folder {where}\n    fix: give gs://BUCKET/PREFIX, or a folder of `spot run`")
        places = runs_in(url) if "://" in url else local_runs(Path(where))
        found = [(place.name, _reader(place).standing()) for place in places]
        if as_json:
            typer.echo(json.dumps([asdict(standing) for _, standing in found]))
        elif found:
            console().print(table_of([(_short(name), standing) for name, standing in found]))
        else:
            typer.echo(f"no runs in {where}")


def _reader(place: Place) -> Reader:
    run = place.run
    theirs = run is not None and (run.workload.kind == "llm" or "max_steps" in run.training.model_fields_set)
    stages = ends_of(run) if run else {}
    steps = max(stages.values()) if stages else run.training.max_steps if run and theirs else None
    return Reader(open_store(place.url), place.run_id, steps, stages)


def _watch(reader: Reader, place: Place, first: Standing) -> None:
    with Live(draw(first, place.name), console=console(), auto_refresh=False) as live:
        while (now := reader.standing()).state != "complete":
            live.update(draw(now, place.name), refresh=True)
            time.sleep(_EVERY_S)
        live.update(draw(now, place.name), refresh=True)


def _say_not_begun(place: Place, target: str, *, as_json: bool) -> None:
    if as_json:
        raise typer.Exit(1)
    fix = "spot run begins it" if place.url.startswith("file://") else "spot deploy begins it"
    if place.run is None:
        fix = f"spot ls {place.url.rpartition('/')[0]} lists the runs there"
    elif place.run.ablations is not None:
        fix = f"spot ablate {target} trains its experiments, and --table says how far they are"
    raise NoSuchRun(f"run {place.run_id} has not begun: nothing is in {place.name}\n    fix: {fix}")


def _short(name: str) -> str:
    here = f"{Path.cwd()}/"
    return name.removeprefix(here)


@contextmanager
def _told() -> Iterator[None]:
    """What can go wrong is told in a few lines, without a traceback."""
    try:
        yield
    except Unavailable as error:
        typer.echo(
            f"{error}\n    fix: see that this machine reaches Cloud Storage (network, proxy), and ask again", err=True
        )
        raise typer.Exit(1) from None
    except (NoSuchRun, StoreError, NewerFormatError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
