"""Pictures in a bucket, on the local storage server: errors that pass, pictures that are broken, a cache."""

from __future__ import annotations

import multiprocessing
import shutil
import tarfile
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.store import open_store
from infra.local.storage.control import StorageControl, running_storage
from tests.pictures.conftest import numbers, open_batches, open_folder, picture, write_folder
from workloads.kept import Kept
from workloads.pictures.batch import DataError
from workloads.pictures.batches import Batches

SOURCE = "gs://pictures/set"
COUNT = 40


@pytest.fixture(scope="module")
def server() -> Iterator[StorageControl]:
    with running_storage() as control:
        yield control


@pytest.fixture
def folder(server: StorageControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is in the bucket too."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    server.reset()
    server.create_bucket("pictures")
    folder = write_folder(tmp_path / "set", COUNT)
    store = open_store(SOURCE)
    for path in sorted(folder.rglob("*.*")):
        store.create(path.relative_to(folder).as_posix(), path.read_bytes(), timeout=10)
    return folder


def stream(batches: Batches, steps: int = COUNT // 4) -> list[Any]:
    """What is seen and learnt of, and the pixels that belong to it."""
    seen = []
    for batch in islice(batches, steps):
        learnt = [(micro.labels >= 0).sum().item() for micro in batch.micro_batches]
        pixels = [micro.pixels[:, 0, 0, 0].tolist() for micro in batch.micro_batches]
        seen.append((numbers(batch), batch.targets, learnt, pixels))
    return seen


def images_read(server: StorageControl) -> list[str]:
    return [seen.name for seen in server.requests() if seen.action == "get" and seen.name.endswith((".png", ".tar"))]


def test_errors_that_pass_lose_repeat_and_reorder_nothing(server: StorageControl, folder: Path) -> None:
    """10 % of the reads fail once, 1 % twice, and a picture is broken: its sample is left out by name, and no other."""
    (folder / "images/0007.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    store = open_store(SOURCE)
    store.replace("images/0007.png", b"\x89PNG\r\n\x1a\nno picture", timeout=10)
    expected = stream(open_batches(folder, pack=False, on_broken="skip"))
    for number in range(0, COUNT, 10):
        server.fault("status", action="get", name=rf"{number:04}\.png", count=2 if number == 0 else 1)
    server.forget_requests()
    batches = open_batches(SOURCE, pack=False, on_broken="skip")
    assert stream(batches) == expected
    assert not server.pending_faults(), "each of them struck"
    read = images_read(server)
    assert len(set(read)) == COUNT and len(read) == COUNT + COUNT // 10 + 1, "nothing is read again but what failed"
    assert sorted(number for step in expected for number in step[0]) == [*range(COUNT)]
    assert batches.broken == batches.state_dict()["broken"] == 1


def _in_a_process_of_its_own(source: str, told: Any) -> None:
    told.put(stream(open_batches(source, pack=False)))


def test_a_warm_cache_reads_no_picture_from_the_bucket_and_outlives_the_process(
    server: StorageControl, folder: Path, cache: Path
) -> None:
    expected = stream(open_batches(folder, pack=False))
    assert stream(open_batches(SOURCE, pack=False)) == expected
    kept = sorted(path for path in (cache / "pictures").glob("*/*/*") if path.is_file())
    assert len(kept) == COUNT
    server.forget_requests()
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()
    other = fork.Process(target=_in_a_process_of_its_own, args=(SOURCE, told))
    other.start()
    assert told.get() == expected
    other.join(timeout=30)
    assert images_read(server) == []
    kept[3].write_bytes(kept[3].read_bytes()[:-1] + b"?")  # the disk is failing
    assert stream(open_batches(SOURCE, pack=False)) == expected
    assert len(images_read(server)) == 1, "what is damaged is fetched again, and it alone"


def test_a_shard_is_read_through_once_and_then_by_the_place_of_each_picture(
    server: StorageControl, folder: Path
) -> None:
    expected = stream(open_batches(folder, pack=False))
    lines = (folder / "train.jsonl").read_bytes().splitlines()
    shard = BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as out:
        for number, line in enumerate(lines):
            for name, content in ((f"{number:06}.png", picture(number)), (f"{number:06}.json", line)):
                member = tarfile.TarInfo(f"some/{name}")
                member.size = len(content)
                out.addfile(member, BytesIO(content))
    open_store(SOURCE).create("shards/a.tar", shard.getvalue(), timeout=10)
    batches = open_batches(SOURCE, pack=False, records=["shards/*.tar"], cache_gb=0)
    server.forget_requests()
    assert stream(batches) == expected
    sent = [seen.sent for seen in server.requests() if seen.name.endswith(".tar")]
    assert len(sent) == COUNT and sum(sent) < COUNT * 400 < len(shard.getvalue()), "none is read for its neighbour"


def test_the_next_vm_fetches_what_the_first_made_of_the_shards_and_reads_none_through(
    server: StorageControl, folder: Path, cache: Path
) -> None:
    assert folder
    kept = Kept(open_store("gs://pictures/run"), say=lambda _: None)
    first = open_folder(SOURCE, kept=kept)
    (made,) = cache.glob("samples-*")
    kept.keep(made.name, made).join(timeout=30)
    shutil.rmtree(cache)
    server.forget_requests()
    second = open_folder(SOURCE, kept=kept)
    assert [each.digest for each in second.train] == [each.digest for each in first.train]
    assert second.train[0].sample(7) == first.train[0].sample(7)
    read = [seen.name for seen in server.requests() if seen.action == "get"]
    assert read and all(name.startswith("run/tokens/samples-") for name in read)
    server.corrupt("pictures", next(name for name in read if "index" not in name), fresh_checksum=True)
    shutil.rmtree(cache)
    assert open_folder(SOURCE, kept=kept).train[0].digest == first.train[0].digest, "what is rotten is made again"


def test_a_picture_that_is_another_one_now_is_refused_and_never_left_out(server: StorageControl, folder: Path) -> None:
    batches = open_batches(SOURCE, pack=False, on_broken="skip")
    open_store(SOURCE).replace("images/0003.png", picture(4), timeout=10)
    with pytest.raises(DataError, match=r"images/0003\.png in gs://pictures/set is not what it was when the run began"):
        stream(batches)
