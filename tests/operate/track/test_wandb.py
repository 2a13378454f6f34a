"""W&B and trackio by their own clients: what they were told, read back from what they keep."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.store import open_store
from infra.cli import app
from infra.local.bucket import RunRecords
from infra.operate.track.views import identity_of
from tests.operate.track.history import History, at_random

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef0123456789abcdef01234567"


def records(file: Path) -> Iterator[Any]:
    """What a W&B client wrote: records in LevelDB's log format behind its own header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def told(folder: Path) -> tuple[list[tuple[int, dict[str, str]]], set[tuple[str, str, str]]]:
    """Step and values of each row, over all sittings, and as what run."""
    rows, runs = [], set()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            if record.WhichOneof("record_type") == "run":
                runs.add((record.run.entity, record.run.project, record.run.run_id))
            if record.WhichOneof("record_type") == "history":
                values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                rows.append((int(values.pop("_step")), values))
    return rows, runs


def track(url: str, *options: str) -> str:
    done = CliRunner().invoke(app, ["track", url, *options])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.timeout(180)
def test_wandbs_own_file_has_each_step_once_in_order_after_preemptions_and_spikes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the W&B client is not installed: pip install 'spot-training[tracking]'")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    url, folder = f"file://{tmp_path}/run", tmp_path / "told"
    store = open_store(url)
    history = at_random(store, 5)
    how = ("--to", "wandb", "--offline", "--project", "p", "--entity", "team", "--dir", str(folder))
    assert "wandb sync" in track(url, *how)
    history.begin("preempted")
    history.train(3)
    history.commit()
    history.finish()
    track(url, *how, "--watch")
    assert "told 0 steps" in track(url, *how)

    rows, runs = told(folder)
    truth = RunRecords(store).metrics()
    assert [step for step, _ in rows] == [line["step"] for line in truth]
    assert [float(values["loss"]) for _, values in rows] == [line["loss"] for line in truth]
    assert runs == {("team", "p", identity_of(store, "run"))}
    marks = [(step, name) for step, values in rows for name in values if name in ("spot/preempted", "spot/spike")]
    assert marks, "preemptions and rollbacks are marks"
    assert [int(values["spot/checkpoint"]) for _, values in rows if "spot/checkpoint" in values][-1] == history.step
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == [], "the key is in no file"


def test_trackio_has_each_step_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed: pip install trackio")
    url = f"file://{tmp_path}/run"
    store = open_store(url)
    history = History(store)
    history.begin()
    history.train(4)
    history.commit()
    how = ("--to", "trackio", "--project", "p", "--dir", str(tmp_path))
    track(url, *how)
    history.begin("preempted")
    history.train(3)
    history.commit()
    track(url, *how)

    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("p")
    assert run.name == identity_of(store, "run")
    found = [(row["step"], row["loss"]) for row in SQLiteStorage.get_logs("p", run.name)]
    assert found == [(line["step"], line["loss"]) for line in RunRecords(store).metrics()]
