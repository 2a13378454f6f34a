"""Kinds: a run's checkpoints are a session's or a program's folder, and none reads the other's."""

from __future__ import annotations

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import Layout, ManifestError
from agent.checkpoint.restore import refuse_layout
from agent.store import Corrupt, NotFound


def refuse_other_kind(checkpoints: Checkpoints, *, layout: Layout, timeout: float) -> None:
    """Raises RestoreError where the run's newest checkpoint is another kind's. `layout`: what the program reads.
    Asked before anything is started: a session's program takes half a minute to ask by itself."""
    for entry in checkpoints.candidates(timeout=timeout):
        try:
            manifest = checkpoints.read(entry, timeout=timeout)
        except (ManifestError, Corrupt, NotFound):
            continue  # restoring says so, and goes on to the next
        refuse_layout(checkpoints, entry, manifest, layout)
        return
