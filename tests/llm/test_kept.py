"""Tokens in the run's bucket: made once, taken whole or not at all, and nobody waits for their upload."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.store import Forbidden, Store, StoreError, Unavailable, open_store
from infra.local.storage.control import running_storage
from tests.agent.stores import Watched
from tests.llm.conftest import make_data
from workloads import kept as kept_module
from workloads.kept import Kept
from workloads.llm import tokens as tokens_module
from workloads.llm.tokens import TokenisedText, tokenise

PATIENCE_S = 20.0
DATA = make_data(include=["json/tool.py", "json/scanner.py"])


@pytest.fixture(params=["file", pytest.param("gs", id="cloud storage")])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "file":
        yield open_store((tmp_path / "bucket").as_uri())
        return
    with running_storage() as control:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", control.url)
        control.create_bucket("runs")
        yield open_store("gs://runs/test")


class Vm:
    """One after the other: each with an empty cache, and the same bucket."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.made = 0
        self._folder, self._monkeypatch, self._number = folder, monkeypatch, 0
        build = tokens_module._build

        def counted(*given: object) -> None:
            self.made += 1
            build(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(tokens_module, "_build", counted)
        monkeypatch.setattr(kept_module, "PIECE", 4096)  # many of them

    def start(self, store: Store) -> TokenisedText:
        """Tokenise on a new VM, and wait until its upload is over."""
        self._number += 1
        self._monkeypatch.setenv("SPOT_CACHE_DIR", str(self._folder / f"vm-{self._number}"))
        text = tokenise(DATA, kept=Kept(store, self.said.append))
        for thread in threading.enumerate():
            if thread.name == "keep-tokens":
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
        return text


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vm:
    monkeypatch.setattr(kept_module, "PAUSE_S", 0.01)
    return Vm(tmp_path, monkeypatch)


def pieces(store: Store) -> list[str]:
    return [found.name for found in store.list("tokens/", timeout=10) if "index-" not in found.name]


def indexes(store: Store) -> list[str]:
    return [found.name for found in store.list("tokens/", timeout=10) if "index-" in found.name]


def test_a_new_vm_takes_the_tokens_that_an_earlier_one_made(store: Store, vm: Vm, tmp_path: Path) -> None:
    first = vm.start(store)
    second = vm.start(store)

    assert vm.made == 1
    assert second.folder != first.folder
    assert second.facts == first.facts
    assert second.tokens.tobytes() == first.tokens.tobytes()
    second.save_tokenizer(tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer/tokenizer.json").read_bytes() == (
        first.folder / "tokenizer/tokenizer.json"
    ).read_bytes()
    assert len(indexes(store)) == 1


@pytest.mark.parametrize("how", ["gone", "other content", "cut short"])
def test_rotten_tokens_are_made_again_and_kept_beside_them(store: Store, vm: Vm, how: str) -> None:
    first = vm.start(store)
    piece = pieces(store)[0]
    size = len(store.read(piece, timeout=10))
    store.delete(piece, timeout=10)
    if how != "gone":
        store.create(piece, b"x" * (size if how == "other content" else size // 2), timeout=10)

    second = vm.start(store)
    assert (vm.made, second.facts) == (2, first.facts)
    assert any("can't be used" in line for line in vm.said)
    assert vm.start(store).facts == first.facts
    assert vm.made == 2
    assert len(indexes(store)) == 2


def test_an_upload_that_was_cut_off_is_nothing_until_the_next_vm_has_ended_it(store: Store, vm: Vm) -> None:
    left = 3

    def power_goes(operation: str, name: str) -> None:
        nonlocal left
        left -= operation == "create"
        if left < 0:
            raise StoreError("the power went")

    vm.start(Watched(store, before=power_goes))
    assert (len(pieces(store)), indexes(store)) == (3, [])

    vm.start(store)
    assert vm.made == 2
    assert vm.start(store).facts.tokens
    assert vm.made == 2


def test_a_bucket_that_is_away_costs_no_start_and_is_tried_again(store: Store, vm: Vm) -> None:
    away = 5

    def refuse(operation: str, name: str) -> None:
        nonlocal away
        away -= 1
        if away >= 0:
            raise Unavailable("the bucket is away") if away % 2 else Forbidden("not yet")

    assert vm.start(Watched(store, before=refuse)).facts.tokens
    assert vm.start(store).facts.tokens
    assert vm.made == 1


def test_nobody_waits_for_the_upload(store: Store, tmp_path: Path) -> None:
    gate = threading.Event()

    def wait(operation: str, name: str) -> None:
        if operation == "create":
            gate.wait(PATIENCE_S)

    assert tokenise(DATA, kept=Kept(Watched(store, before=wait))).facts.tokens
    (upload,) = [thread for thread in threading.enumerate() if thread.name == "keep-tokens"]
    gate.set()
    upload.join(PATIENCE_S)
    assert len(indexes(store)) == 1


def test_an_index_that_names_files_elsewhere_is_not_followed(store: Store, vm: Vm, tmp_path: Path) -> None:
    vm.start(store)
    (name,) = indexes(store)
    index = json.loads(store.read(name, timeout=10))
    index["files"]["../../stolen"] = index["files"].pop("facts.json")
    store.replace(name, json.dumps(index).encode(), timeout=10)

    vm.start(store)
    assert vm.made == 2
    assert not list(tmp_path.rglob("stolen"))
