"""The run's text as tokens: made once, cached here, kept in the bucket, proved unchanged by its fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agent.config import Data
from workloads.errors import DataError
from workloads.folders import cache_folder
from workloads.kept import Kept
from workloads.llm.sources import TextFile, list_files
from workloads.models.tokenizer import TRAINING_BYTES, digest, encode, folder_files, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

FORMAT = 1
"""Raised when the same text would be cut into other tokens than before: older caches are not used any more."""
TOKENS, FACTS, TOKENIZER = "tokens", "facts.json", "tokenizer"
"""What is in a folder of the cache."""
FILES_AT_ONCE = 64
READERS = 8


@dataclass(frozen=True)
class Facts:
    """What is known about the tokens, kept beside them."""

    source: str
    files: dict[str, str]
    """Name to digest of each file of text."""
    text_bytes: int
    dtype: str
    """Of the tokens on disk: uint16 or uint32."""
    tokens: int
    tokens_sha256: str
    tokenizer_sha256: str
    vocab_size: int
    """Token ids are below it."""
    end_of_text: int
    """The token after each document."""


@dataclass(frozen=True)
class TokenisedText:
    """All documents one after the other, each with an end-of-text token behind it."""

    folder: Path
    facts: Facts

    @cached_property
    def tokens(self) -> Tokens:
        """[tokens], read from disk as they are needed."""
        opened: Tokens = np.memmap(self.folder / TOKENS, dtype=self.facts.dtype, mode="r")
        return opened

    def save_tokenizer(self, folder: Path) -> None:
        """Put the tokenizer's files beside a saved model."""
        shutil.copytree(self.folder / TOKENIZER, folder, dirs_exist_ok=True)


def tokenise(data: Data, *, model_name: str | None = None, kept: Kept | None = None) -> TokenisedText:
    """The tokens of `data`: from the cache, else from the bucket, else made. `model_name` brings the tokenizer when
    `data` has none; `kept` is what the run's bucket has, and gets what it lacks, beside what comes next.

    Raises:
        DataError: the text or the tokenizer can't be had.
    """
    files = list_files(data)
    key = _key(data, files, model_name)
    folder = cache_folder() / f"text-{key}"
    cached = _open(folder)
    if cached is None and kept is not None:
        cached = _fetch(folder, kept, key)
    if cached is None:
        _build(folder, data, files, model_name)
        cached = _open(folder)
    if cached is None:
        raise DataError(f"the tokens just written to {folder} read back differently: the disk is failing, use another")
    if kept is not None:
        kept.keep(key, folder)
    return cached


def _key(data: Data, files: list[TextFile], model_name: str | None) -> str:
    """Equal for equal text and tokenizer; the text is known by its digests, so that nothing is tokenised to get it."""
    name = _tokenizer_name(data, model_name)
    parts = {
        "format": FORMAT,
        "files": [(file.name, file.digest) for file in files],
        "text_field": data.text_field,
        "tokenizer": name or _train_vocab_size(data),
        "tokenizer_files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder_files(name or "")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _tokenizer_name(data: Data, model_name: str | None) -> str | None:
    return data.tokenizer.name if data.tokenizer is not None else model_name


def _train_vocab_size(data: Data) -> int:
    if data.tokenizer is None or data.tokenizer.train_vocab_size is None:
        raise DataError("no tokenizer: write data.tokenizer: {train_vocab_size: 4096}, or {name: HUGGING-FACE-NAME}")
    return data.tokenizer.train_vocab_size


def _open(folder: Path) -> TokenisedText | None:
    """What is in the cache, or None when it is missing or was damaged: then it is made again."""
    try:
        text = TokenisedText(folder, Facts(**json.loads((folder / FACTS).read_text())))
        if hashlib.sha256(text.tokens.data).hexdigest() == text.facts.tokens_sha256:
            return text
    except (OSError, ValueError, TypeError):
        pass
    return None


def _fetch(folder: Path, kept: Kept, key: str) -> TokenisedText | None:
    with _beside(folder) as aside:
        if kept.fetch(key, aside):
            _put_in_place(aside, folder)
    return _open(folder)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to write to and rename: one of the name `folder` is whole, whenever the power went. Raises DataError."""
    aside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="aside-", dir=folder.parent))
        yield aside
    except OSError as error:
        raise DataError(f"can't write the cache {folder.parent}: {error.strerror}; set SPOT_CACHE_DIR") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _build(folder: Path, data: Data, files: list[TextFile], model_name: str | None) -> None:
    with _beside(folder) as aside:
        name = _tokenizer_name(data, model_name)
        tokenizer = load_tokenizer(name) if name else train_tokenizer(_sample(files), _train_vocab_size(data))
        tokenizer.save_pretrained(aside / TOKENIZER)
        dtype = "uint16" if len(tokenizer) <= 2**16 else "uint32"
        count, seen = 0, hashlib.sha256()
        with (aside / TOKENS).open("wb") as out:
            for encoded in _encoded(tokenizer, files):
                tokens = np.asarray(encoded, dtype=dtype)
                tokens.tofile(out)
                seen.update(tokens.data)
                count += len(tokens)
        facts = Facts(
            source=data.source,
            files={file.name: file.digest for file in files},
            text_bytes=sum(file.size for file in files),
            dtype=dtype,
            tokens=count,
            tokens_sha256=seen.hexdigest(),
            tokenizer_sha256=digest(tokenizer),
            vocab_size=len(tokenizer),
            end_of_text=tokenizer.eos_token_id,
        )
        (aside / FACTS).write_text(json.dumps(asdict(facts)))
        _put_in_place(aside, folder)


def _sample(files: Iterable[TextFile], size: int = TRAINING_BYTES) -> Iterator[str]:
    """The texts of the first files, until `size` bytes are reached."""
    for file in files:
        yield from file.texts()
        size -= file.size
        if size <= 0:
            return


def _encoded(tokenizer: PreTrainedTokenizerBase, files: list[TextFile]) -> Iterator[list[int]]:
    """The tokens of some files at a time, in order; a bucket's files are read side by side."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(files), FILES_AT_ONCE):
            read = readers.map(lambda file: file.texts(), files[start : start + FILES_AT_ONCE])
            documents = encode(tokenizer, [text for texts in read for text in texts])
            yield [token for document in documents for token in (*document, tokenizer.eos_token_id)]


def _put_in_place(aside: Path, folder: Path) -> None:
    for path in [*aside.rglob("*"), aside]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    try:
        aside.rename(folder)
    except OSError:
        if _open(folder) is None:  # a damaged one is in the way; else another process was quicker with the same tokens
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)


def fingerprint(text: TokenisedText, data: Data) -> dict[str, Any]:
    """What makes two runs see the same samples, as JSON. `describe_change` explains a difference."""
    facts = text.facts
    return {
        "tokens": facts.tokens_sha256,
        "tokenizer": facts.tokenizer_sha256,
        "sequence_length": data.sequence_length,
        "eval_fraction": data.eval_fraction,
        "about": {
            "cache": text.folder.name,
            "source": facts.source,
            "files": len(facts.files),
            "bytes": facts.text_bytes,
            "vocab_size": facts.vocab_size,
        },
    }


def describe_change(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What differs between two fingerprints, in words; None when the samples are the same."""
    keys = ("tokens", "tokenizer", "sequence_length", "eval_fraction")
    if all(was.get(key) == now[key] for key in keys):
        return None
    then, about = was.get("about", {}), now["about"]
    changes = [
        f"data.{key} was {was.get(key)} and is {now[key]}"
        for key in ("sequence_length", "eval_fraction")
        if was.get(key) != now[key]
    ]
    if then.get("source") != about["source"]:
        changes.append(f"data.source was {then.get('source')} and is {about['source']}")
    files = _changed_files(then.get("cache", ""), about["cache"])
    if files:
        changes.append(files)
    elif (then.get("files"), then.get("bytes")) != (about["files"], about["bytes"]):
        changes.append(
            f"the text was {then.get('bytes')} bytes in {then.get('files')} files "
            f"and is {about['bytes']} in {about['files']}"
        )
    elif was.get("tokens") != now["tokens"] and was.get("tokenizer") == now["tokenizer"]:
        changes.append("the text has other content")
    if was.get("tokenizer") != now["tokenizer"]:
        sizes = f" ({then.get('vocab_size')} tokens then, {about['vocab_size']} now)"
        changes.append(f"the tokenizer is another one{sizes}")
    return "; ".join(changes)


def _changed_files(was: str, now: str) -> str | None:
    """The names that differ, where this machine still has the earlier tokens in its cache."""
    old, new = _open(cache_folder() / was), _open(cache_folder() / now)
    if old is None or new is None:
        return None
    before, after = old.facts.files, new.facts.files
    changed = [f"{name} added" for name in sorted(after.keys() - before.keys())]
    changed += [f"{name} gone" for name in sorted(before.keys() - after.keys())]
    changed += [f"{name} changed" for name in sorted(before.keys() & after.keys()) if before[name] != after[name]]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return ", ".join(changed[:5]) + more if changed else None
