"""A checkpoint of one kind is never read by another: refused by name, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checkpoint.kinds import refuse_other_kind
from agent.checkpoint.manifest import Layout
from agent.checkpoint.restore import RestoreError
from agent.store import open_store
from tests.agent.checkpoint.test_bucket import Bucket
from tests.agent.stores import Watched


@pytest.mark.parametrize("layout", ["folder", "safetensors"])
def test_a_checkpoint_of_another_kind_is_refused_and_ones_own_is_not(layout: Layout, tmp_path: Path) -> None:
    bucket = Bucket(Watched(open_store(f"file://{tmp_path}")))
    other: Layout = "safetensors" if layout == "folder" else "folder"
    refuse_other_kind(bucket.checkpoints, layout=layout, timeout=5.0)  # there is none yet
    manifest = bucket.manifest(4, 1, bucket.upload(4, 1)).model_copy(update={"layout": layout})
    bucket.checkpoints.commit(manifest, timeout=5.0)
    refuse_other_kind(bucket.checkpoints, layout=layout, timeout=5.0)
    with pytest.raises(RestoreError, match=r"checkpoints are those of .*\n    fix: write another run_id") as refused:
        refuse_other_kind(bucket.checkpoints, layout=other, timeout=5.0)
    assert not refused.value.passing  # nobody tries again
