"""Where a run's bucket is: of a run file, of a folder that `spot run` made, or a URL as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.config import RunConfig
from agent.store import Store, open_store
from agent.store.names import LINE
from infra.operate.run_file import load

_CALL_S = 30.0


class NoSuchRun(Exception):
    """There is no run where one was looked for; the text says what to do."""


@dataclass(frozen=True)
class Place:
    """`url` of a run's objects; `name` for people; `run`: its run file, where that is known."""

    url: str
    name: str
    run: RunConfig | None = None

    @property
    def run_id(self) -> str:
        return self.url.rpartition("/")[2]


def place_of(target: str, *, out: Path | None = None) -> Place:
    """The place that `target` names. Raises NoSuchRun; a run file with mistakes ends the program."""
    if target.startswith(("gs://", "file:///")):
        return Place(target.rstrip("/"), target.rstrip("/"))
    if "://" in target:
        raise NoSuchRun(f"{target} is no bucket that can be read\n    fix: write gs://BUCKET/PREFIX/RUN_ID")
    path = Path(target)
    if path.is_dir():
        found = local_runs(path)
        if len(found) == 1:
            return found[0]
        raise NoSuchRun(
            f"{target} is no folder of one run\n    fix: give a run file, gs://BUCKET/PREFIX/RUN_ID, or a folder that "
            "`spot run` made; `spot ls` lists them"
        )
    run = load(path)
    url = f"{run.checkpoint.bucket}/{run.run_id}"
    at_home = local_url(url, out or Path("out") / run.run_id)
    if at_home is None or (out is None and run.cloud is not None):
        return Place(url, url, run)
    return Place(at_home, at_home.removeprefix("file://"), run)


def local_url(url: str, out: Path) -> str | None:
    """Where `spot run` keeps what is `url` in the cloud; None for what is no bucket there."""
    return f"file://{(out / 'bucket').resolve()}/{url.removeprefix('gs://')}" if url.startswith("gs://") else None


def local_runs(folder: Path) -> list[Place]:
    """The runs below a folder: what `spot run` made, or a bucket's own objects."""
    lines = {path.parent for path in folder.glob(f"**/{LINE}*.json") if path.is_symlink()}
    runs = sorted({line.parent.resolve() for line in lines})
    return [Place(f"file://{run}", str(run)) for run in runs]


def runs_in(url: str) -> list[Place]:
    """The runs right below a URL. Raises StoreError."""
    store: Store = open_store(url)
    names = [folder.rstrip("/") for folder in store.folders(timeout=_CALL_S)]
    places = [Place(f"{url}/{name}", f"{url}/{name}") for name in names]
    return [place for place in places if open_store(place.url).list(LINE, timeout=_CALL_S, limit=1)]
