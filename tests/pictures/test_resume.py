"""A resumed run goes on with the very batches that were next, and reads nothing of those that were."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.pictures import Pictures
from tests.pictures.conftest import SHAPE, numbers, open_folder, write_folder
from workloads.pictures.batch import Batch, DataError, GlobalBatch, Image
from workloads.pictures.batches import Batches
from workloads.pictures.order import Draws
from workloads.pictures.reader import Reader
from workloads.pictures.source import Source

SIZES = (17, 5)
MIXED: dict[str, Any] = {"mixture": [{"records": ["a.jsonl"], "weight": 2}, {"records": ["b.jsonl"]}]}


@dataclass(frozen=True)
class Wanted:
    """An example: which data, how, and how many steps are trained between four restarts."""

    kind: str
    pack: bool
    augment: str
    lengths: list[int]


@dataclass(frozen=True)
class Counting:
    """Notes what is read, from whichever process: a line for each."""

    inner: Reader
    log: Path

    def read(self, image: Image) -> bytes:
        with self.log.open("ab", buffering=0) as log:
            log.write(f"{image.file}\n".encode())
        return self.inner.read(image)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Source, ...]]:
    """One source and a mixture, opened once: examples are many."""
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, SIZES[0], records="a.jsonl")
    write_folder(folder, SIZES[1], first=100, records="b.jsonl")
    before = os.environ.get("SPOT_CACHE_DIR")
    os.environ["SPOT_CACHE_DIR"] = str(folder / "cache")
    found = {"one": open_folder(folder, records=["a.jsonl"]).train, "mixture": open_folder(folder, **MIXED).train}
    os.environ.pop("SPOT_CACHE_DIR")
    if before is not None:
        os.environ["SPOT_CACHE_DIR"] = before
    return found


def same(one: GlobalBatch, other: GlobalBatch) -> bool:
    """To the bit, with all that is told of them."""

    def equal(a: Batch, b: Batch) -> bool:
        fields = ("pixels", "ids", "labels", "positions", "segments")
        return a.samples == b.samples and all(torch.equal(getattr(a, name), getattr(b, name)) for name in fields)

    pairs = zip(one.micro_batches, other.micro_batches, strict=True)
    return one.targets == other.targets and one.broken == other.broken and all(equal(*pair) for pair in pairs)


def straight_and_resumed(
    sources: Sequence[Source], folder: Path, runs: Sequence[tuple[int, int]], *, ahead: int = 0, **how: Any
) -> None:
    """Train in one go, and again in `runs` of (steps, workers): the same batches, and nothing read that was skipped.
    `ahead`: steps that workers may have been ahead."""

    def batches(of: Sequence[Source], workers: int) -> Batches:
        pictures = Pictures.model_validate({"workers": workers, "reads_at_once": 1 if workers == 0 else 4, **how})
        return Batches(of, SHAPE, pictures, seed=5, global_batch=4, micro_batch=2)

    expected = list(islice(batches(sources, 0), sum(count for count, _ in runs) + ahead))
    state = None
    done = 0
    for count, workers in runs:
        log = folder / uuid4().hex
        log.touch()
        loader = batches([replace(source, reader=Counting(source.reader, log)) for source in sources], workers)
        if state is not None:
            loader.load_state_dict(json.loads(state))
        for batch in islice(loader, count):
            assert same(batch, expected[done]), f"step {done}"
            done += 1
        state = json.dumps(loader.state_dict())
        assert len(state) < 1024
        had = sorted(files(expected[done - count : done]))
        read = log.read_text().split()
        if workers == 0:
            assert sorted(read) == had, "something was read that was not wanted, or twice"
        else:  # workers are ahead, by what they are given and never by what was skipped
            after = sorted(files(expected[done - count :]))
            assert not [name for name in had if name not in read]
            assert all(read.count(name) <= after.count(name) for name in set(read))


def files(batches: Sequence[GlobalBatch]) -> Iterator[str]:
    for batch in batches:
        for micro in batch.micro_batches:
            for row in micro.samples:
                for sample in row:
                    yield sample.images[0].file


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.builds(
        Wanted,
        kind=st.sampled_from(["one", "mixture"]),
        pack=st.booleans(),
        augment=st.sampled_from(["none", "color", "crop"]),
        lengths=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    )
)
def test_three_resumes_anywhere_give_the_batches_of_a_run_in_one_go(
    sources: dict[str, tuple[Source, ...]], tmp_path: Path, wanted: Wanted
) -> None:
    runs = [(length, 0) for length in wanted.lengths]
    straight_and_resumed(sources[wanted.kind], tmp_path, runs, pack=wanted.pack, augment=wanted.augment)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pack"), [("one", True), ("mixture", True), ("mixture", False)])
def test_any_number_of_workers_and_any_change_of_it_gives_the_same_batches(
    sources: dict[str, tuple[Source, ...]], tmp_path: Path, kind: str, pack: bool
) -> None:
    runs = [(3, 4), (2, 1), (4, 0), (3, 4)]
    straight_and_resumed(sources[kind], tmp_path, runs, ahead=6, pack=pack, augment="crop")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pack=st.booleans(),
    spans=st.lists(st.tuples(st.integers(0, 25), st.integers(1, 6)), max_size=3),
    cut=st.integers(0, 4),
)
def test_what_is_passed_over_is_never_handed_out_and_nothing_else_is_missed(
    sources: dict[str, tuple[Source, ...]], pack: bool, spans: list[tuple[int, int]], cut: int
) -> None:
    """As `supervision.spike` wants it: also where a resumed run is told again."""
    passed = [(start, start + length) for start, length in spans]
    how = Pictures(workers=0, reads_at_once=1, pack=pack)

    def batches() -> Batches:
        return Batches(sources["one"], SHAPE, how, seed=5, global_batch=4, micro_batch=2)

    def of(loader: Batches, steps: int) -> list[int]:
        """A batch's samples in their order: packing moves them within it."""
        return [number for batch in islice(loader, steps) for number in sorted(numbers(batch))]

    cut_off, resumed, whole = batches(), batches(), batches()
    for loader in (cut_off, resumed, whole):
        loader.pass_over(passed)
    got = of(cut_off, cut)
    resumed.load_state_dict(cut_off.state_dict())
    got += of(resumed, 5 - cut)
    assert got == of(whole, 5)
    draws = Draws([len(sources["one"][0])], seed=5)
    taken = [at for at in range(resumed.place()) if not any(start <= at < end for start, end in passed)]
    assert sorted(got) == sorted(sources["one"][0].sample(draws[at].row).facts["number"] for at in taken)


def test_ranks_share_the_batches_of_one(sources: dict[str, tuple[Source, ...]]) -> None:
    """Also from another number of ranks' state."""

    def batches(rank: int, ranks: int) -> Batches:
        return Batches(
            sources["mixture"], SHAPE, Pictures(workers=0), seed=5, global_batch=4, micro_batch=1, rank=rank,
            world_size=ranks,
        )  # fmt: skip

    one, two = batches(0, 1), [batches(rank, 2) for rank in range(2)]
    for _ in range(7):
        whole, parts = next(one), [next(each) for each in two]
        assert numbers(whole) == numbers(parts[0]) + numbers(parts[1])
        assert whole.targets == parts[0].targets == parts[1].targets
        assert one.state_dict() == two[0].state_dict() == two[1].state_dict()


def test_other_data_is_refused_by_what_is_other(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", 9)
    changes: dict[str, dict[str, Any]] = {
        "data.pictures.pack was True and is False": {"pack": False},
        "data.pictures.augment was none and is crop": {"augment": "crop"},
        "training.seed was 5 and is 6": {"seed": 6},
    }
    state = opened(tmp_path / "a").state_dict()
    opened(tmp_path / "a", workers=3).load_state_dict(state)  # how it is read is no other data
    for words, change in changes.items():
        with pytest.raises(DataError, match=rf"other data: {words}\. Put back .* under another run_id"):
            opened(tmp_path / "a", **change).load_state_dict(state)
    (tmp_path / "a").rename(tmp_path / "moved")
    opened(tmp_path / "moved").load_state_dict(state)
    name = tmp_path / "moved/images/0003.png"
    name.write_bytes((tmp_path / "moved/images/0004.png").read_bytes())  # of the same size
    with pytest.raises(DataError, match="the records or pictures are others"):
        opened(tmp_path / "moved").load_state_dict(state)
    write_folder(tmp_path / "moved", 10)
    with pytest.raises(DataError, match="samples was 9 and is 10"):
        opened(tmp_path / "moved").load_state_dict(state)


def opened(folder: Path, *, seed: int = 5, **pictures: Any) -> Batches:
    return Batches(
        open_folder(folder).train, SHAPE, Pictures.model_validate(pictures), seed=seed, global_batch=2, micro_batch=1
    )
