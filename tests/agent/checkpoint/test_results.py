"""Results: the run is complete when every file of the finished model is in the bucket, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.checkpoint.line import Line
from agent.checkpoint.lines import LinesObject
from agent.checkpoint.results import is_complete, store_result
from agent.store import Forbidden, NotFound, StoreError, Unavailable, open_store
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
