"""Results: the run is complete when every file of the finished model is in the bucket, and not before."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crc32c import crc32c
from structlog.testing import capture_logs

from agent.checkpoint import results
from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.line import Line
from agent.checkpoint.lines import LinesObject
from agent.checkpoint.manifest import Manifest, Part, RankParts
from agent.checkpoint.results import is_complete, store_result
from agent.store import Buffer, Forbidden, NotFound, StoredObject, StoreError, Unavailable, open_store
from infra.local.bucket import RunRecords
from tests.agent.stores import Watched

T = 10.0
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(300_000), "empty": b"", "deep/er/tokens.txt": b"a b"}


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(open_store(f"file://{tmp_path}/bucket"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "nothing in it").mkdir()
    return folder


def finish(store: Watched, folder: Path, attempt: int = 3) -> str:
    return store_result(
        store, Line(store), folder, attempt=attempt, claimant="us", step=12, lines=LinesObject(), timeout=T
    )


def test_every_file_is_in_the_bucket_as_it_was_and_the_run_is_complete(store: Watched, model: Path) -> None:
    assert not is_complete(Line(store), timeout=T)
    assert finish(store, model) == f"{store.url}/results/00003"
    assert is_complete(Line(store), timeout=T)
    assert RunRecords(store).result() == FILES
    newest = Line(store).newest(timeout=T)
    assert newest
    done = newest.result
    assert done["finished"]
    assert {**done, "finished": ""} == {
        "step": 12, "attempt": 3, "result": "results/00003", "files": len(FILES), "finished": "",
    }  # fmt: skip


def test_the_mark_is_written_when_all_else_is_there(store: Watched, model: Path) -> None:
    finish(store, model)
    created = [name for operation, name in store.operations if operation == "create"]
    assert created[-1].startswith("line/")
    assert len(created) == 1 + len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_run_whose_result_is_not_whole_is_not_complete(store: Watched, model: Path, name: str) -> None:
    def before(operation: str, what: str) -> None:
        if operation == "create" and what.endswith(name):
            raise Forbidden("storage.objects.create is missing")

    store.before = before
    with pytest.raises(Forbidden):
        finish(store, model)
    store.before = lambda operation, name: None
    assert not is_complete(Line(store), timeout=T)
    with pytest.raises(NotFound):
        RunRecords(store).result()
    finish(store, model)
    assert RunRecords(store).result() == FILES, "the same attempt may try again over what it left"


def test_a_trainer_that_left_nothing_has_not_finished(store: Watched, tmp_path: Path) -> None:
    (tmp_path / "model" / "empty").mkdir(parents=True)
    for folder in (tmp_path / "model", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="the trainer saved no result"):
            finish(store, folder)
    assert not is_complete(Line(store), timeout=T)


def test_a_run_is_completed_once(store: Watched, model: Path) -> None:
    finish(store, model)
    mark = Line(store).newest(timeout=T)
    (model / "config.json").write_bytes(b"another")
    finish(store, model, attempt=4)
    assert Line(store).newest(timeout=T) == mark
    assert RunRecords(store).result() == FILES


def test_a_bucket_that_gives_no_answer_does_not_say_that_a_run_is_unfinished(store: Watched, model: Path) -> None:
    finish(store, model)

    def before(operation: str, name: str) -> None:
        raise Unavailable("no answer")

    store.before = before
    with pytest.raises(Unavailable):
        is_complete(Line(store), timeout=T)


# Large files


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "PART", 5000)


def _sent(store: Watched) -> list[str]:
    """Names of what was sent since, but for the line's; and forget it."""
    names = [name for operation, name in store.operations if operation == "create" and not name.startswith("line/")]
    store.operations.clear()
    return names


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_goes_up_in_parts_that_are_joined_and_leave_nothing_behind(store: Watched, model: Path) -> None:
    finish(store, model)
    assert RunRecords(store).result() == FILES
    sent = _sent(store)
    assert len(sent) == 3 + 60, "three small files as they are, and 60 parts"
    assert store.names("rolling/") == set()


@pytest.mark.usefixtures("small_parts")
def test_a_failure_in_the_middle_goes_on_where_it_was_not_at_the_start(store: Watched, model: Path) -> None:
    made = 0

    def after(operation: str, name: str) -> None:
        nonlocal made
        made += operation == "create"
        if made >= 30:
            raise Unavailable("the bucket is away")

    store.after = after
    with pytest.raises(Unavailable):
        finish(store, model)
    store.after = lambda operation, name: None
    before = set(_sent(store))
    assert 30 <= len(before) < 60, "nothing more is begun after a failure"
    for _ in range(2):

        def refuse(operation: str, name: str) -> None:
            if name == "results/00003/model.safetensors":
                raise Forbidden("a grant spreads")

        store.before = refuse
        with pytest.raises(Forbidden):
            finish(store, model)
    store.before = lambda operation, name: None
    finish(store, model)
    sent = _sent(store)
    assert not before & set(sent), "it was sent before"
    assert len(before) + len(sent) == 63
    assert RunRecords(store).result() == FILES


def _commit(store: Watched, content: bytes, files: list[dict[str, Any]], size: int) -> None:
    """A checkpoint of a folder's bytes in parts of `size`, named by the line."""
    line = Line(store)
    line.claim(claimant="us", facts={}, found=list, timeout=T)
    parts = []
    for offset in range(0, len(content), size):
        data = content[offset : offset + size]
        name = f"rolling/000000000012-00001/part-{offset // size:05d}.bin"
        store.create(name, data, timeout=T)
        parts.append(Part(name=name, offset=offset, size=len(data), crc32c=crc32c(data)))
    manifest = Manifest(
        run_id="run", step=12, attempt=1, reason="final", created="now", layout="folder", world_size=1,
        ranks=[RankParts(rank=0, size=len(content), parts=parts)], state={"step": 12, "files": files},
    )  # fmt: skip
    Checkpoints(store, "run").commit(manifest, timeout=T)
    line.commit(attempt=1, claimant="us", step=12, folder="rolling/000000000012-00001", keep=1, timeout=T)


def _listed(model: Path) -> tuple[bytes, list[dict[str, Any]]]:
    content, files = b"", []
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        data = path.read_bytes()
        at = {"path": path.relative_to(model).as_posix(), "kind": "file", "mode": 0o644, "mtime_ns": 0}
        files.append({**at, "size": len(data), "offset": len(content)})
        content += data
    return content, files


def test_what_the_final_checkpoint_has_is_not_sent_again(store: Watched, model: Path) -> None:
    content, files = _listed(model)
    _commit(store, content, files, 10_000)
    checkpoint = store.names("rolling/")
    _sent(store)
    with capture_logs() as told:
        finish(store, model)
    sent = _sent(store)
    assert len(sent) == 3 + 1, "three small files, and the large one's head, which lies in a part with others"
    last = [each for each in told if each["event"] == "result_progress"][-1]
    assert last["done"] == last["size"] == len(content)
    assert last["copied"] == 290_005
    assert RunRecords(store).result() == FILES
    assert store.names("rolling/") == checkpoint


def test_a_file_that_changed_since_the_final_checkpoint_is_stored_as_it_is_now(store: Watched, model: Path) -> None:
    content, files = _listed(model)
    _commit(store, content, files, 10_000)
    changed = bytearray(FILES["model.safetensors"])
    changed[150_000] ^= 1
    (model / "model.safetensors").write_bytes(changed)
    (model / "deep/er/tokens.txt").write_bytes(b"longer than it was")
    finish(store, model)
    assert RunRecords(store).result() == {
        **FILES, "model.safetensors": bytes(changed), "deep/er/tokens.txt": b"longer than it was",
    }  # fmt: skip


def test_a_checkpoint_that_lost_a_part_does_not_stand_in_the_way(store: Watched, model: Path) -> None:
    content, files = _listed(model)
    _commit(store, content, files, 10_000)
    store.delete("rolling/000000000012-00001/part-00005.bin", timeout=T)
    finish(store, model)
    assert RunRecords(store).result() == FILES


@pytest.mark.usefixtures("small_parts")
def test_progress_is_told_now_and_then_not_with_each_part(
    store: Watched, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as told:
        finish(store, model)
    progress = [each for each in told if each["event"] == "result_progress"]
    assert [each["done"] for each in progress] == [sum(map(len, FILES.values()))]
    monkeypatch.setattr(results, "_TOLD_EVERY_S", 0.0)
    with capture_logs() as told:
        finish(store, model, attempt=4)
    done = [each["done"] for each in told if each["event"] == "result_progress"]
    assert len(done) > 60 and max(done) == sum(map(len, FILES.values()))


@pytest.mark.usefixtures("small_parts")
def test_one_deadline_is_for_all_of_it(store: Watched, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    clock = iter(range(10_000))
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    create = store.store.create

    def noted(name: str, data: Buffer, *, timeout: float) -> StoredObject:
        left.append(timeout)
        return create(name, data, timeout=T)

    monkeypatch.setattr(store.store, "create", noted)
    store_result(store, Line(store), model, attempt=3, claimant="us", step=12, lines=LinesObject(), timeout=1_000.0)
    assert min(left) < 900, "each call has what is left, not all of it anew"
