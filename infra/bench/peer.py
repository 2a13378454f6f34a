"""The peer: what most training scripts do, `torch.save` to a file and Google's client to the bucket, and back.

It is given the benefit of the doubt: its client is warm, its file lies on whichever of disk and memory is faster, and
reading it back, `mmap` is on or off as is faster.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Client

from infra.bench.state import Training

_TIMEOUT_S = 300.0


def fastest_file(training: Training, folders: Sequence[Path]) -> Path:
    """A file in the folder where overwriting it takes torch.save the least time."""
    took: dict[Path, float] = {}
    for file in (folder / "peer.pt" for folder in folders):
        for _ in range(2):  # the second time the file is there already
            begun = time.monotonic()
            torch.save(training.state_dicts(), file)
            took[file] = time.monotonic() - begun
        file.unlink()
    return min(took, key=lambda file: took[file])


def open_blob(url: str, bucket: str, name: str) -> Blob:
    """An object by Google's own client, at the local server."""
    client = Client(project="bench", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=url))
    return client.bucket(bucket).blob(name)


def save(training: Training, file: Path, blob: Blob) -> dict[str, float]:
    """Seconds of each phase until the state is in the bucket."""
    begun = time.monotonic()
    torch.save(training.state_dicts(), file)
    written = time.monotonic()
    blob.upload_from_filename(str(file), timeout=_TIMEOUT_S)
    return {"write_s": written - begun, "upload_s": time.monotonic() - written}


def restore(training: Training, file: Path, blob: Blob) -> dict[str, float]:
    """Seconds to download the file, and to load it into model and optimizer with and without mmap."""
    begun = time.monotonic()
    blob.download_to_filename(str(file), timeout=_TIMEOUT_S)
    phases = {"download_s": time.monotonic() - begun}
    for name, mapped in (("load_mmap_s", True), ("load_s", False)):  # last the one that needs the file no more
        training.forget()
        begun = time.monotonic()
        training.load_state_dicts(torch.load(file, weights_only=True, mmap=mapped))
        if mapped:
            training.use()  # nothing has been read until now
        phases[name] = time.monotonic() - begun
    return phases


def download(blob: Blob) -> dict[str, Any]:
    """The state as the bucket holds it, to compare."""
    with blob.open("rb") as source:
        state: dict[str, Any] = torch.load(source, weights_only=True)
    return state
