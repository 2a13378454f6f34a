"""The peer: what most training scripts do, `torch.save` to a file and Google's client to the bucket, and back.

It is given the benefit of the doubt: its client is warm, its file lies on whichever of disk and memory is faster, and
reading it back, `mmap` is on or off as is faster. With mmap nothing has been read when the state is "loaded": there the
clock stops when each tensor was read and written once, as the next update will.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Client

from infra.bench.state import Training

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Way:
    """Where torch.save writes to, and how torch.load reads."""

    file: Path
    mapped: bool


def fastest_way(training: Training, folders: Sequence[Path]) -> Way:
    """The folder where overwriting a file takes torch.save the least time, and the faster way to load it."""
    took: dict[Path, float] = {}
    for file in (folder / "peer.pt" for folder in folders):
        for _ in range(2):  # the second time the file is there already
            begun = time.monotonic()
            torch.save(training.state_dicts(), file)
            took[file] = time.monotonic() - begun
    best = min(took, key=lambda file: took[file])
    loads: dict[bool, float] = {}
    for mapped in (False, True, False):  # the first to warm up, the last to be done with the file
        loads[mapped] = _load(training, best, mapped=mapped)
    for file in took.keys() - {best}:
        file.unlink()
    return Way(best, loads[True] < loads[False])


def open_blob(url: str, bucket: str, name: str) -> Blob:
    """An object by Google's own client, at the local server."""
    client = Client(project="bench", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=url))
    return client.bucket(bucket).blob(name)


def save(training: Training, way: Way, blob: Blob) -> dict[str, float]:
    """Seconds of each phase until the state is in the bucket."""
    begun = time.monotonic()
    torch.save(training.state_dicts(), way.file)
    written = time.monotonic()
    blob.upload_from_filename(str(way.file), timeout=_TIMEOUT_S)
    return {"write_s": written - begun, "upload_s": time.monotonic() - written}


def restore(training: Training, way: Way, blob: Blob) -> dict[str, float]:
    """Seconds to download the file, and to load it into model and optimizer."""
    training.forget()
    begun = time.monotonic()
    blob.download_to_filename(str(way.file), timeout=_TIMEOUT_S)
    download_s = time.monotonic() - begun
    load_s = _load(training, way.file, mapped=way.mapped)
    if way.mapped:  # the next save overwrites the file: what is mapped from it would change with it
        _load(training, way.file, mapped=False)
    return {"download_s": download_s, "load_s": load_s}


def _load(training: Training, file: Path, *, mapped: bool) -> float:
    training.forget()
    begun = time.monotonic()
    training.load_state_dicts(torch.load(file, weights_only=True, mmap=mapped))
    if mapped:
        training.use()
    return time.monotonic() - begun


def download(blob: Blob) -> dict[str, Any]:
    """The state as the bucket holds it, to compare."""
    with blob.open("rb") as source:
        state: dict[str, Any] = torch.load(source, weights_only=True)
    return state
