"""The trackers: each is told rows, and knows, or is kept for, how far it has been told."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from agent.config.tracking import Wandb
from agent.store import AlreadyExists, Store
from agent.store.names import LINE
from infra.operate.track.stream import Batch, Cursor
from infra.operate.track.tensorboard import cursor_of, file_of

_CALL_S = 30.0
_FIRST = f"{LINE}999999998.json"


class TrackerAway(Exception):
    """The tracker could not be told. The bucket keeps all: it is told the next time."""


class TrackerUnfit(TrackerAway):
    """Nor will it be from here, however often it is tried: what it takes is not there."""


class View(Protocol):
    """One tracker, and one run in it."""

    def begin(self) -> Cursor:
        """From where on it has not been told. Raises TrackerAway."""

    def send(self, batch: Batch) -> None:
        """Tell it. Raises TrackerAway."""

    def close(self) -> None:
        """Wait until all that was sent is there. Raises TrackerAway."""


def identity_of(store: Store, run_id: str) -> str:
    """What the run is called in a tracker however often it is interrupted: made of the entry that began its line, which
    is in the bucket before anything is trained. A run that is begun anew in an empty bucket is another one."""
    return f"{run_id}-{hashlib.sha256(store.read(_FIRST, timeout=_CALL_S)).hexdigest()[:8]}"


class WandbView:
    """Weights & Biases, by its own client. Online it knows itself how far it is; `folder` keeps what is not sent yet,
    and `offline` all of it, to be sent later by `wandb sync`, with a note of how far."""

    def __init__(self, store: Store, run_id: str, wandb: Wandb, *, folder: Path, offline: bool) -> None:
        self._store, self._run_id, self._wandb = store, run_id, wandb
        self._folder, self._offline = folder, offline
        self._run: Any = None
        self._next = 0

    def begin(self) -> Cursor:
        try:
            import wandb  # noqa: PLC0415 - takes a second, and is there only where somebody wants it
        except ImportError as error:
            raise TrackerUnfit(
                f"the wandb client is not installed here ({error}): pip install 'spot-training[tracking]'"
            ) from error
        if not self._offline and not wandb.login(prompt=False, verify=False):
            raise TrackerUnfit("there is no W&B key: set WANDB_API_KEY, or run wandb login")
        self._folder.mkdir(parents=True, exist_ok=True)
        identity = identity_of(self._store, self._run_id)
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True,
            init_timeout=60, login_timeout=60,
        )  # fmt: skip
        with _away("Weights & Biases"):
            self._run = wandb.init(
                project=self._wandb.project, entity=self._wandb.entity, id=identity, name=self._run_id, resume="allow",
                dir=self._folder, mode="offline" if self._offline else "online", settings=settings,
            )  # fmt: skip
            self._next = self._run.step if self._run.resumed else 0
        return read_cursor(self._note) if self._offline else Cursor()

    @property
    def next_step(self) -> int:
        """What it has lies before this step, as it says itself."""
        return self._next

    def send(self, batch: Batch) -> None:
        with _away("Weights & Biases"):
            for row in batch.rows:
                if row.step >= self._next:
                    self._run.log(row.values | {"time": row.time}, step=row.step)
        self._cursor = batch.cursor

    def close(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        with _away("Weights & Biases"):
            run.finish()
        if self._offline and hasattr(self, "_cursor"):
            write_cursor(self._note, self._cursor)

    @property
    def _note(self) -> Path:
        return self._folder / f"{self._run_id}.told.json"


class TrackioView:
    """trackio, on this machine (`TRACKIO_DIR`) or in a Space, with a note in `folder` of how far it was told."""

    def __init__(self, store: Store, run_id: str, *, project: str, space: str | None, folder: Path) -> None:
        self._store, self._run_id, self._project, self._space = store, run_id, project, space
        self._note = folder / f"{run_id}.trackio.json"
        self._run: Any = None
        self._cursor = Cursor()

    def begin(self) -> Cursor:
        try:
            import trackio  # noqa: PLC0415 - as above
        except ImportError as error:
            raise TrackerUnfit(f"trackio is not installed here ({error}): pip install trackio") from error
        name = identity_of(self._store, self._run_id)
        with _away("trackio"):
            self._run = trackio.init(
                self._project, name=name, space_id=self._space, resume="allow", embed=False, auto_log_gpu=False,
                auto_log_cpu=False,
            )  # fmt: skip
        self._cursor = read_cursor(self._note)
        return self._cursor

    def send(self, batch: Batch) -> None:
        with _away("trackio"):
            for row in batch.rows:
                self._run.log(row.values | {"logged_at": row.time}, step=row.step)
        self._cursor = batch.cursor

    def close(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        with _away("trackio"):
            run.finish()
        write_cursor(self._note, self._cursor)


class TensorBoardView:
    """Event files in `store`, a folder or the run's bucket: their names say how far it is."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._prefix = store, f"{folder}/" if folder else ""

    def begin(self) -> Cursor:
        names = [stored.name.removeprefix(self._prefix) for stored in self._store.list(self._prefix, timeout=_CALL_S)]
        return max(filter(None, map(cursor_of, names)), key=lambda cursor: cursor.sequence, default=Cursor())

    def send(self, batch: Batch) -> None:
        if not batch.rows:
            return
        name, content = file_of(batch)
        with contextlib.suppress(AlreadyExists):  # another sender's, of the very same steps
            self._store.create(f"{self._prefix}{name}", content, timeout=_CALL_S)

    def close(self) -> None:
        """Each file is there once it is sent."""


def read_cursor(note: Path) -> Cursor:
    return Cursor(**json.loads(note.read_text())) if note.exists() else Cursor()


def write_cursor(note: Path, cursor: Cursor) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    aside = note.with_suffix(".tmp")
    aside.write_text(json.dumps(asdict(cursor)))
    aside.replace(note)


@contextlib.contextmanager
def _away(tracker: str) -> Iterator[None]:
    """Whatever a client raises: it has no list of it."""
    try:
        yield
    except Exception as error:
        raise TrackerAway(f"{tracker} could not be told: {type(error).__name__}: {error}") from error
