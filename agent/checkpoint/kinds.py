"""Kinds: a run's checkpoints are a session's or a program's folder, and none reads the other's."""

from __future__ import annotations

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import ManifestError
from agent.checkpoint.restore import RestoreError
from agent.store import Corrupt, NotFound


def refuse_other_kind(checkpoints: Checkpoints, *, folder: bool, timeout: float) -> None:
    """Raises RestoreError where the run's newest checkpoint is another kind's. `folder`: `kind: command` reads it.
    Asked before anything is started: a session's program takes half a minute to ask by itself."""
    for entry in checkpoints.candidates(timeout=timeout):
        try:
            manifest = checkpoints.read(entry, timeout=timeout)
        except (ManifestError, Corrupt, NotFound):
            continue  # restoring says so, and goes on to the next
        if (manifest.layout == "folder") != folder:
            kinds = ("kind command", "a kind with a session")
            made, now = kinds if manifest.layout == "folder" else kinds[::-1]
            raise RestoreError(
                f"the run's checkpoints are those of {made}, and workload.kind is {now} now, which can't read them: "
                f"{checkpoints.store.url}/{entry.folder}\n    fix: write another run_id, or the kind as it was"
            )
        return
