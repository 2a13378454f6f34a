import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from agent.config import Data
from tests.llm.conftest import make_data
from workloads.errors import DataError
from workloads.llm import tokens as tokens_module
from workloads.llm.data import Batches, split_rows
from workloads.llm.sources import list_files
from workloads.llm.tokens import TOKENIZER, TOKENS, TokenisedText, fingerprint, tokenise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of some modules, free to be changed."""
    copy = tmp_path / "text"
    copy.mkdir()
    for file in list_files(make_data()):
        (copy / Path(file.name).name).write_text(file.texts()[0])
    return copy


def data_in(folder: Path, **changes: Any) -> Data:
    return make_data(source=str(folder), include=["*.py"], **changes)


def make_batches(data: Data) -> Batches:
    text = tokenise(data)
    rows, _ = split_rows(text.tokens, data.sequence_length, data.eval_fraction)
    return Batches(rows, seed=0, fingerprint=fingerprint(text, data), global_batch=2, micro_batch=1)


def test_tokens_are_the_documents_with_an_end_of_text_after_each() -> None:
    data = make_data()
    text = tokenise(data)
    tokenizer = AutoTokenizer.from_pretrained(text.folder / TOKENIZER)

    ends = np.flatnonzero(text.tokens == text.facts.end_of_text)
    documents = np.split(text.tokens, ends + 1)

    assert len(documents.pop()) == 0
    decoded = [tokenizer.decode(document[:-1], clean_up_tokenization_spaces=False) for document in documents]
    assert decoded == [source for file in list_files(data) for source in file.texts()]


@pytest.mark.slow
def test_training_a_tokenizer_again_gives_the_same_vocabulary_and_merges(tmp_path: Path) -> None:
    """In a process of its own: neither hash seeds nor threads may show."""
    program = (
        "from tests.llm.conftest import make_data; from workloads.llm.tokens import tokenise;"
        "text = tokenise(make_data()); print(text.facts.tokenizer_sha256, text.facts.tokens_sha256)"
    )
    env = os.environ | {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "SPOT_CACHE_DIR": str(tmp_path / "b")}
    other = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)

    facts = tokenise(make_data()).facts

    assert other.stdout.split() == [facts.tokenizer_sha256, facts.tokens_sha256]


def test_tokenizer_has_the_size_that_was_asked_for() -> None:
    text = tokenise(make_data(tokenizer={"train_vocab_size": 333}))
    assert text.facts.vocab_size == 333
    assert text.tokens.dtype == np.uint16
    assert int(text.tokens.max()) < 333


def test_existing_tokenizer_is_taken_from_its_folder(tmp_path: Path) -> None:
    first = tokenise(make_data())
    first.save_tokenizer(tmp_path / "saved")

    named = tokenise(make_data(tokenizer={"name": str(tmp_path / "saved")}))
    of_the_model = tokenise(make_data(tokenizer=None), model_name=str(tmp_path / "saved"))

    assert named.facts.tokens_sha256 == of_the_model.facts.tokens_sha256 == first.facts.tokens_sha256


def test_tokenizer_that_can_not_be_had_offline_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"can't load the tokenizer 'no/such-one': download it.*train_vocab_size"):
        tokenise(make_data(tokenizer={"name": "no/such-one"}))


def test_second_start_reads_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenise(make_data())
    monkeypatch.setattr("workloads.llm.tokens._build", None)
    second = tokenise(make_data(sequence_length=64, eval_fraction=0.1))
    assert np.array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_damaged_cache_is_made_again(damage: str) -> None:
    first = tokenise(make_data())
    kept, path = first.tokens.tolist(), first.folder / TOKENS
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[100] ^= 1
        path.write_bytes(content if damage == "flipped" else content[:-2])

    assert tokenise(make_data()).tokens.tolist() == kept


def test_nothing_half_written_stays_when_tokenising_fails(cache: Path, folder: Path) -> None:
    (folder / "bad.py").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"bad\.py is not UTF-8"):
        tokenise(data_in(folder))
    assert list(cache.iterdir()) == []


def test_cache_that_can_not_be_written_is_a_clear_error(cache: Path) -> None:
    cache.write_text("a file in the way")
    with pytest.raises(DataError, match="set SPOT_CACHE_DIR"):
        tokenise(make_data())


def test_same_text_in_another_folder_goes_on(folder: Path, tmp_path: Path) -> None:
    state = make_batches(data_in(folder)).state_dict()
    moved = folder.rename(tmp_path / "moved")
    make_batches(data_in(moved)).load_state_dict(state)


def refused(state: dict[str, Any], data: Data) -> str:
    with pytest.raises(DataError) as caught:
        make_batches(data).load_state_dict(state)
    return str(caught.value)


def test_changed_text_is_refused_and_the_files_are_named(folder: Path) -> None:
    state = make_batches(data_in(folder)).state_dict()
    (folder / "decoder.py").write_text("x = 1\n")
    (folder / "added.py").write_text("y = 2\n")
    (folder / "tool.py").unlink()

    message = refused(state, data_in(folder))

    assert "added.py added, tool.py gone, decoder.py changed" in message
    assert "Put back what the run was started with, or start a new run" in message


def test_changed_text_is_refused_on_a_machine_with_an_empty_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_batches(data_in(folder)).state_dict()
    monkeypatch.setenv("SPOT_CACHE_DIR", str(tmp_path / "fresh"))
    (folder / "added.py").write_text("y = 2\n")
    assert "bytes in 5 files and is" in refused(state, data_in(folder))


def test_changed_sequence_length_and_split_are_refused(folder: Path) -> None:
    state = make_batches(data_in(folder)).state_dict()
    message = refused(state, data_in(folder, sequence_length=16, eval_fraction=0.2))
    assert "data.sequence_length was 32 and is 16; data.eval_fraction was 0.05 and is 0.2" in message


def test_changed_tokenizer_is_refused(folder: Path) -> None:
    state = make_batches(data_in(folder)).state_dict()
    message = refused(state, data_in(folder, tokenizer={"train_vocab_size": 310}))
    assert "the tokenizer is another one (300 tokens then, 310 now)" in message


def test_two_that_tokenise_at_once_get_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing in the cache, and both are done before either puts its tokens in place."""
    both, put_in_place = threading.Barrier(2), tokens_module._put_in_place

    def meet(aside: Path, folder: Path) -> None:
        both.wait(timeout=30)
        put_in_place(aside, folder)

    monkeypatch.setattr(tokens_module, "_put_in_place", meet)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(tokenise, [make_data()] * 2)

    assert one.facts == two.facts
    assert [path.name for path in cache.iterdir()] == [one.folder.name]


def test_opened_text_is_read_only() -> None:
    text: TokenisedText = tokenise(make_data())
    with pytest.raises(ValueError, match="read-only"):
        text.tokens[0] = 1
