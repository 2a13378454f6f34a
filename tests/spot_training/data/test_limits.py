"""What other libraries' loaders do not resume exactly is said; held against the libraries, where they are installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from spot_training import ResumableLoader, Session
from spot_training.data import limits_of

from tests.spot_training.data.conftest import Squares, read, resumed
from tests.spot_training.data.test_stream import Lines


def is_exact(make: Callable[[], Any], *, cut: int = 4, count: int = 12) -> bool:
    """Whether a library's own loader, cut and resumed by its own state, gives what it gave undisturbed."""

    def forever(loader: Any) -> Any:
        while True:
            yield from loader

    torch.manual_seed(0)
    straight = [str(batch) for batch in islice(forever(make()), count)]
    torch.manual_seed(0)
    loader = make()
    batches = forever(loader)
    got = [str(next(batches)) for _ in range(cut)]
    state, rng = copy.deepcopy(loader.state_dict()), torch.get_rng_state()
    del batches
    torch.manual_seed(7)
    loader = make()
    loader.load_state_dict(state)
    torch.set_rng_state(rng)
    return got + [str(batch) for batch in islice(forever(loader), count - cut)] == straight


def test_our_own_loader_has_no_limit_but_that_a_stream_is_read_again() -> None:
    assert limits_of(ResumableLoader(Squares(), 3)) == []
    assert limits_of(torch.nn.Linear(1, 1)) == []


def test_torchdatas_loader_is_told_what_it_does_not_resume() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def plain() -> Any:
        return stateful(Squares(), batch_size=3, shuffle=True)

    def random_rows() -> Any:
        return stateful(Squares(noise=True), batch_size=3, shuffle=True)

    def own_generator() -> Any:
        return stateful(Squares(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(1))

    assert is_exact(plain)
    assert not is_exact(random_rows)
    assert not is_exact(own_generator)
    assert ["random numbers that its rows draw" in said for said in limits_of(plain())] == [True]
    assert "another order" in limits_of(own_generator())[1]
    assert all("ResumableLoader" in said for said in limits_of(own_generator()))


def hugging_face_stream(*, shuffle: bool) -> Any:
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"x": list(range(40))}).to_iterable_dataset(num_shards=4)
    return stream.shuffle(seed=3, buffer_size=8) if shuffle else stream


def test_hugging_faces_stream_is_told_of_its_shuffle_buffer() -> None:
    assert is_exact(lambda: hugging_face_stream(shuffle=False), cut=17, count=30)
    assert not is_exact(lambda: hugging_face_stream(shuffle=True), cut=17, count=30)
    assert limits_of(hugging_face_stream(shuffle=False)) == []
    assert ["shuffle buffer is not kept" in said for said in limits_of(hugging_face_stream(shuffle=True))] == [True]


@pytest.mark.parametrize("cut", [2, 9, 10, 13])
def test_hugging_faces_stream_with_a_shuffle_buffer_resumes_exactly_in_our_loader(cut: int) -> None:
    def make() -> ResumableLoader[Any]:
        return ResumableLoader(hugging_face_stream(shuffle=True), 4, collate_fn=numbers)

    straight = read(make().forever(), 25)
    loader = make()
    got = read(loader.forever(), cut)
    for more in (3, 22 - cut):
        loader = resumed(make, loader.state_dict())
        got += read(loader.forever(), more)
    assert got == straight
    assert straight[:10] != straight[10:20], "each epoch has its own order"


def test_hugging_faces_table_resumes_exactly_in_our_loader() -> None:
    datasets = pytest.importorskip("datasets")

    def make() -> ResumableLoader[Any]:
        return ResumableLoader(datasets.Dataset.from_dict({"x": list(range(10))}), 3, shuffle=True, collate_fn=numbers)

    straight = read(make().forever(), 9)
    loader = make()
    got = read(loader.forever(), 5)
    assert got + read(resumed(make, loader.state_dict()).forever(), 4) == straight


def numbers(rows: list[dict[str, int]]) -> torch.Tensor:
    return torch.tensor([row["x"] for row in rows])


def test_the_session_says_the_limits_of_what_is_tracked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPOT_AGENT_SOCKET", raising=False)
    session = Session.open("alone")
    session.track(model=torch.nn.Linear(1, 1), lines=ResumableLoader(Lines(), 3))
    session.close()
    assert "lines: the stream is read again at a resume" in caplog.text
