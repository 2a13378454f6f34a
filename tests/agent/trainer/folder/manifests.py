"""Manifests of a folder as versions before this one wrote them: the list of files is in `state`."""

from __future__ import annotations

from typing import Any

from agent.checkpoint.manifest import Manifest, Part, RankParts
from agent.store import Store
from tests.agent.checkpoint.saving import RUN


def first_format(store: Store, content: bytes, files: list[dict[str, Any]], part: int = 1 << 20) -> Manifest:
    """A checkpoint of `content` in parts of so many bytes."""
    parts = []
    for at in range(0, len(content), part):
        stored = store.create(f"rolling/000000000001-00001/part-{at}", content[at : at + part], timeout=5.0)
        parts.append(Part(name=stored.name, offset=at, size=stored.size, crc32c=stored.crc32c))
    return Manifest(
        run_id=RUN, step=1, attempt=1, reason="cadence", created="", layout="folder", world_size=1,
        ranks=[RankParts(rank=0, size=len(content), parts=parts)], state={"step": 1, "files": files},
    )  # fmt: skip
