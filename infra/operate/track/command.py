"""The command `spot track`: it tells a tracker what a run has committed, once or as it goes on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.config.tracking import Wandb
from agent.store import StoreError, open_store
from agent.store.formats import NewerFormatError
from infra.operate.status.places import NoSuchRun, Place, place_of
from infra.operate.track.stream import Stream
from infra.operate.track.views import TensorBoardView, TrackerAway, TrackerUnfit, TrackioView, View, WandbView

_PAUSES_S = (5.0, 15.0, 60.0, 300.0)
"""After a failure: a tracker that is down is asked now and then, and loses nothing."""

EXIT_UNFIT = 3
"""To try again here would change nothing: who started it need not."""

Tracker = Literal["wandb", "tensorboard", "trackio"]


def register(app: typer.Typer) -> None:
    app.command()(track)


def track(  # noqa: PLR0917 - options of a command
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run file, gs://BUCKET/PREFIX/RUN_ID, or a folder of `spot run`.")
    ],
    to: Annotated[Tracker, typer.Option(help="The tracker.")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the run is complete.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: look again after so many seconds.")] = 30.0,
    project: Annotated[
        str | None, typer.Option(help="The tracker's project. Default: the run file's, or RUN_ID.")
    ] = None,
    entity: Annotated[str | None, typer.Option(help="The W&B user or team. Default: the run file's.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="W&B: into --dir alone, for `wandb sync` later.")] = False,
    space: Annotated[str | None, typer.Option(help="trackio: a Space. Default: this machine.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where a tracker's files go. Default: out/RUN_ID/TRACKER.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of `spot run` to look into. Default: out/RUN_ID.")
    ] = None,
    in_bucket: Annotated[str | None, typer.Option(help="TensorBoard: into this folder of the run's bucket.")] = None,
) -> None:
    """Tell W&B, TensorBoard or trackio what a run has committed: each step once, whatever happened to the run.

    From the bucket alone: run it anywhere, any time, again. The W&B key is WANDB_API_KEY, or what `wandb login` kept.
    Exit status 3: this machine lacks what it takes.
    """
    try:
        place = place_of(run, out=out)
        where = folder or Path("out") / place.run_id / to
        store = open_store(place.url)

        def make() -> View:
            if to == "wandb":
                return WandbView(store, place.run_id, _wandb(place, project, entity), folder=where, offline=offline)
            if to == "trackio":
                return TrackioView(store, place.run_id, project=project or place.run_id, space=space, folder=where)
            if in_bucket:
                return TensorBoardView(store, in_bucket)
            where.mkdir(parents=True, exist_ok=True)
            return TensorBoardView(open_store(f"file://{where.absolute()}"), "")

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        told = follow(Stream(store), make, watch=watch, every_s=every, say=lambda text: typer.echo(text, err=True))
    except TrackerUnfit as error:
        typer.echo(f"{error}. The bucket has all: spot track tells it from any machine", err=True)
        raise typer.Exit(EXIT_UNFIT) from None
    except (NoSuchRun, StoreError, NewerFormatError, TrackerAway) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"{to} was told {told} steps of {place.run_id}")
    if to == "tensorboard" and not in_bucket:
        typer.echo(f"tensorboard --logdir {where}")
    if offline:
        typer.echo(f"wandb sync {where / 'wandb'}/offline-run-*")


def sleep_until_asked(seconds: float) -> None:
    """Or until SIGUSR1, which is blocked, says that there is something new."""
    signal.sigtimedwait([signal.SIGUSR1], seconds)


def follow(
    stream: Stream, make: Callable[[], View], *, watch: bool, every_s: float, say: Callable[[str], None],
    sleep: Callable[[float], object] = sleep_until_asked,
) -> int:  # fmt: skip
    """Tell the view that `make` makes all there is, and with `watch` what comes, until the run is complete. How many
    steps that were. Without `watch` it raises TrackerAway and StoreError; with it both are said, and it is tried again.
    """
    told, failures = 0, 0
    view: View | None = None
    while True:
        try:
            if view is None:
                view = make()
                cursor = view.begin()
            complete = False
            known = view.next_step if isinstance(view, WandbView) else 0
            for batch in stream.after(cursor, known=known):
                view.send(batch)
                cursor, complete = batch.cursor, batch.complete
                told += sum(row.step >= known for row in batch.rows)
                failures = 0
            if complete or not watch:
                view.close()
                return told
        except (TrackerAway, StoreError) as error:
            if not watch or isinstance(error, TrackerUnfit):
                raise
            say(f"{error}; it is tried again")
            if view is not None:
                with contextlib.suppress(TrackerAway):
                    view.close()
            view = None  # it is asked anew how far it was told
            sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1
            continue
        sleep(every_s)


def _wandb(place: Place, project: str | None, entity: str | None) -> Wandb:
    """The options, else the run file's section, else a project of the run's name."""
    section = place.run.tracking.wandb if place.run and place.run.tracking else None
    return Wandb(
        project=project or (section.project if section else place.run_id),
        entity=entity or (section.entity if section else None),
    )
