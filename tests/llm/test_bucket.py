"""Text in a bucket, on the local storage server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.store import open_store
from infra.local.storage.control import StorageControl, running_storage
from tests.llm.conftest import make_data
from workloads.errors import DataError
from workloads.llm.data import Batches, split_rows
from workloads.llm.sources import list_files
from workloads.llm.tokens import fingerprint, tokenise

SOURCE = "gs://texts/corpus"
DATA = make_data(source=SOURCE, include=["**/*.py"])


@pytest.fixture(scope="module")
def server() -> Iterator[StorageControl]:
    with running_storage() as control:
        yield control


@pytest.fixture
def texts(server: StorageControl, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What was put into the bucket under the prefix, beside other things."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    server.reset()
    server.create_bucket("texts")
    put = {file.name: file.texts()[0] for file in list_files(make_data())}
    for name, text in put.items():
        open_store(SOURCE).create(name, text.encode(), timeout=10)
    open_store(SOURCE).create("json/image.png", b"\xff\xfe", timeout=10)
    open_store("gs://texts/corpus-of-others").create("other.py", b"x = 1", timeout=10)
    return put


def test_bucket_gives_the_objects_that_are_included(texts: dict[str, str]) -> None:
    assert {file.name: file.texts() for file in list_files(DATA)} == {name: [text] for name, text in texts.items()}


def test_text_that_moved_from_a_folder_to_a_bucket_goes_on(texts: dict[str, str], tmp_path: Path) -> None:
    for name, text in texts.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    in_folder, in_bucket = (
        Batches(
            split_rows(tokenise(data).tokens, 32, 0.05)[0],
            seed=0,
            fingerprint=fingerprint(tokenise(data), data),
            global_batch=2,
            micro_batch=1,
        )
        for data in (make_data(source=str(tmp_path / "folder"), include=["**/*.py"]), DATA)
    )
    in_bucket.load_state_dict(in_folder.state_dict())


def test_second_start_downloads_nothing(texts: dict[str, str], server: StorageControl) -> None:
    first = tokenise(DATA)
    server.fault("status", action="get", status=403, count=None)
    assert tokenise(DATA).facts == first.facts


def test_changed_object_is_seen_without_downloading_the_rest(texts: dict[str, str]) -> None:
    before = {file.name: file.digest for file in list_files(DATA)}
    open_store(SOURCE).replace("json/tool.py", b"y = 2\n", timeout=10)
    after = {file.name: file.digest for file in list_files(DATA)}
    assert {name for name in after if before[name] != after[name]} == {"json/tool.py"}


def test_errors_and_damage_on_the_way_are_tried_again(texts: dict[str, str], server: StorageControl) -> None:
    server.fault("status", action="list", status=503)
    server.fault("status", action="get", name="decoder", status=503)
    server.fault("reset", action="get", name="encoder", after_bytes=100)
    assert tokenise(DATA).facts.text_bytes == sum(len(text.encode()) for text in texts.values())
    assert server.pending_faults() == []


def test_damaged_object_is_not_trained_on(texts: dict[str, str], server: StorageControl) -> None:
    server.corrupt("texts", "corpus/json/decoder.py", offset=10)
    with pytest.raises(DataError, match=r"can't read json/decoder\.py of data\.source gs://texts/corpus"):
        tokenise(DATA)


def test_missing_bucket_and_empty_prefix_are_clear_errors(texts: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"can't list data\.source gs://no-such-bucket/x"):
        list_files(make_data(source="gs://no-such-bucket/x"))
    with pytest.raises(DataError, match=r"no text found in gs://texts/empty"):
        list_files(make_data(source="gs://texts/empty"))
