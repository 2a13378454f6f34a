"""`spot checkpoints`: what a run has in its bucket, whether it is whole, and its components as files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.checkpoint.components import Checkpoint, ComponentError, Stored, listed, opened
from agent.store import StoreError
from agent.store.formats import NewerFormatError
from infra.operate.console import console
from infra.operate.status.places import NoSuchRun, place_of

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run file, gs://BUCKET/PREFIX/RUN_ID, or a folder of `spot run`.")
]
Home = Annotated[Path | None, typer.Option("--out", help="Look at home, in this folder of `spot run`.")]
Step = Annotated[int | None, typer.Option("--step", help="Of this step. Default: the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs.")]

app = typer.Typer(no_args_is_help=True, help="A run's checkpoints: what there is, whole or not, and as files.")


@app.command()
def ls(run: Run, out: Home = None, as_json: AsJson = False) -> None:
    """The checkpoints that the run can go on from, newest first; milestones stay for good."""
    with _told():
        found = listed(place_of(run, out=out).url)
        rows = [_row(stored) for stored in found]
        if as_json:
            typer.echo(json.dumps(rows))
        elif rows:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for name in rows[0]:
                table.add_column(name, justify="right" if name in ("step", "bytes") else "left")
            for row in rows:
                table.add_row(*(_shown(value) for value in row.values()))
            console().print(table)
        else:
            typer.echo("no checkpoint yet")


@app.command()
def show(run: Run, step: Step = None, out: Home = None, as_json: AsJson = False) -> None:
    """The components of a checkpoint: what `export --component` and `from:` can name."""
    with _told():
        checkpoint = opened(place_of(run, out=out).url, step)
        rows = []
        for path in checkpoint.components():
            slots = checkpoint.below(path)
            kinds = ", ".join(sorted({slot.dtype for slot in slots.values()}))
            size = sum(slot.size for slot in slots.values())
            kind = str(checkpoint.configs.get(path, {}).get("model_type", ""))
            rows.append({"component": path, "tensors": len(slots), "bytes": size, "types": kinds, "model_type": kind})
        if as_json:
            typer.echo(json.dumps({"checkpoint": checkpoint.name, "components": rows}))
            return
        table = Table(box=None, pad_edge=False, header_style="dim", title=checkpoint.name, title_justify="left")
        for name in ("component", "tensors", "bytes", "types", "model_type"):
            table.add_column(name, justify="right" if name in ("tensors", "bytes") else "left")
        for row in rows:
            table.add_row(*(_shown(value) for value in row.values()))
        console().print(table)


@app.command()
def verify(run: Run, step: Step = None, out: Home = None) -> None:
    """Read a checkpoint whole, each part against its checksum. Exit status 1: it is not whole."""
    with _told():
        checkpoint = opened(place_of(run, out=out).url, step)
        checkpoint.verify()
        parts, size = len(checkpoint.parts), checkpoint.stored.manifest.size
        typer.echo(f"{checkpoint.name} is whole: {size} bytes in {parts} parts, each with its checksum")


@app.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder.")],
    component: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one, such as vision. Default: all of the model.")
    ] = None,
    step: Step = None,
    out: Home = None,
) -> None:
    """Write the weights as safetensors; with config.json beside them, where they are a model of transformers."""
    with _told():
        if to.exists():
            raise ComponentError(f"{to} is there already\n    fix: name a new folder")
        checkpoint = opened(place_of(run, out=out).url, step)
        path = checkpoint.find(component)
        aside = to.with_name(f".{to.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            written = list(_export(checkpoint, path, aside))
            aside.rename(to)  # only what is whole, and verified, is there under its name
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for what, folder in written:
            typer.echo(f"{what}: {to / folder}")


def _export(checkpoint: Checkpoint, path: str, to: Path, folder: Path = Path()) -> Iterator[tuple[str, Path]]:
    """Write a component to `to`/`folder`: whole models of transformers each as a folder of its own."""
    slots = checkpoint.below(path)
    inner = [each for each in checkpoint.configs if each.startswith(f"{path}.") and checkpoint.below(each)]
    if path not in checkpoint.configs and inner:
        children = sorted({name.partition(".")[0] for name in slots})
        alone = len(children) == 1  # a module that only wraps another
        for child in children:
            below = f"{path}.{child}"
            if checkpoint.below(below):
                yield from _export(checkpoint, below, to, folder if alone else folder / child)
        loose = {name: slot for name, slot in slots.items() if "." not in name}
        if loose:
            checkpoint.write(loose, to / folder / "model.safetensors")
            yield path, folder / "model.safetensors"
        return
    checkpoint.write(slots, to / folder / "model.safetensors")
    if path in checkpoint.configs:
        (to / folder / "config.json").write_text(json.dumps(checkpoint.configs[path], indent=2) + "\n")
    yield path, folder if path in checkpoint.configs else folder / "model.safetensors"


def _row(stored: Stored) -> dict[str, object]:
    manifest = stored.manifest
    return {
        "step": manifest.step,
        "attempt": manifest.attempt,
        "kept": "for good" if stored.kept else "rolling",
        "reason": manifest.reason,
        "bytes": manifest.size,
        "created": manifest.created[:19],
    }


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


@contextmanager
def _told() -> Iterator[None]:
    """What can go wrong is told in a few lines, without a traceback."""
    try:
        yield
    except (ComponentError, NoSuchRun, StoreError, NewerFormatError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
