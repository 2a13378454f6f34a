"""Where the text comes from: a folder, the standard library, a bucket, a Hugging Face dataset."""

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.config import Data
from agent.store import StoreError, open_store
from workloads.errors import DataError
from workloads.folders import matches

LIST_TIMEOUT_S = 120.0
READ_TIMEOUT_S = 300.0
ROWS_PER_FILE = 1000

# Machine-written, a copy of the topics, or absent where a distribution packages the tests apart.
_NOT_READ_OF_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data", "__pycache__"}


@dataclass(frozen=True)
class TextFile:
    """A file of text, or a block of rows of a dataset."""

    name: str
    """Unique in its source: a path with `/`."""
    size: int
    """Bytes."""
    digest: str
    """Another one when the content is another one."""
    texts: Callable[[], list[str]]
    """Reads the documents in it. Raises DataError."""


def list_files(data: Data) -> list[TextFile]:
    """Everything that `data` names, ordered by a hash of the names: neighbours have nothing to do with each other, so
    the end of the list is a fair sample of the whole.

    Raises:
        DataError: the source can't be read or has no text.
    """
    if data.source == "stdlib":
        found = [file for file in _standard_library() if matches(file.name, data.include)]
    elif data.source.startswith("gs://"):
        found = list(_bucket(data))
    elif data.source.startswith("hf://"):
        found = list(_hugging_face(data))
    else:
        found = list(_folder(data))
    files = [file for file in found if file.size]
    if not files:
        raise DataError(f"no text found in {data.source} under {', '.join(data.include)}: change data.include")
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def _folder(data: Data) -> Iterator[TextFile]:
    folder = Path(data.source)
    if not folder.is_dir():
        raise DataError(f"data.source {folder} is not a folder: correct it, or write stdlib, gs://... or hf://...")
    for path, name in _walk(folder):
        if matches(name, data.include):
            yield _local_file(path, name, data.text_field)


def _standard_library() -> Iterator[TextFile]:
    from pydoc_data.topics import topics  # noqa: PLC0415 - 700 KB of text that only this source needs

    folder = Path(sysconfig.get_path("stdlib"))
    for path, name in _walk(folder, skip=_NOT_READ_OF_STDLIB):
        generated = path.name.startswith("_sysconfigdata")  # this build's paths and flags, no two machines alike
        if path.suffix == ".py" and not generated:
            yield _local_file(path, name, "")
    for topic, text in topics.items():
        content = text.encode()
        yield TextFile(f"topics/{topic}.txt", len(content), _digest(content), partial(lambda text: [text], text))


def _bucket(data: Data) -> Iterator[TextFile]:
    store = open_store(data.source)
    try:
        objects = store.list(timeout=LIST_TIMEOUT_S)
    except StoreError as error:
        raise DataError(f"can't list data.source {data.source}: {error}") from error

    def read(name: str) -> list[str]:
        try:
            content = store.read(name, timeout=READ_TIMEOUT_S)
        except StoreError as error:
            raise DataError(f"can't read {name} of data.source {data.source}: {error}") from error
        return split(name, content, data.text_field)

    for found in objects:
        if matches(found.name, data.include):
            digest = f"crc32c {found.crc32c:08x}"
            yield TextFile(found.name, found.size, digest, partial(read, found.name))


def _hugging_face(data: Data) -> Iterator[TextFile]:
    try:
        import datasets  # noqa: PLC0415 - an extra that other sources do without
    except ImportError as error:
        raise DataError(f"data.source {data.source} needs the datasets library: pip install datasets") from error
    name, _, split_name = data.source.removeprefix("hf://").partition(":")
    try:
        rows = datasets.load_dataset(name, split=split_name or "train")
    except (OSError, ValueError) as error:
        raise DataError(f"can't load the dataset {name!r}, split {split_name or 'train'!r}: {error}") from error
    if data.text_field not in rows.column_names:
        fields = ", ".join(rows.column_names)
        raise DataError(f"dataset {name!r} has no field {data.text_field!r}: set data.text_field to one of {fields}")
    column = rows.select_columns([data.text_field])
    for start in range(0, len(column), ROWS_PER_FILE):
        block = slice(start, start + ROWS_PER_FILE)

        def read(block: slice = block) -> list[str]:
            return [text for text in column[block][data.text_field] if text]

        content = "\0".join(read()).encode()
        yield TextFile(f"{split_name or 'train'}/{start:012}", len(content), _digest(content), read)


def _walk(folder: Path, skip: Collection[str] = ()) -> Iterator[tuple[Path, str]]:
    """Files below a folder with their names relative to it; hidden ones and links to folders are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        for file in files:
            if not file.startswith("."):
                path = Path(parent, file)
                yield path, path.relative_to(folder).as_posix()


def _local_file(path: Path, name: str, text_field: str) -> TextFile:
    # Read for the digest now and for the text when it is asked for: the data may be larger than memory.
    content = _read(path)
    return TextFile(name, len(content), _digest(content), lambda: split(name, _read(path), text_field))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


def split(name: str, content: bytes, text_field: str) -> list[str]:
    """The documents in a file: its whole text or, in a .jsonl file, one per line. Empty ones are left out."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 text (byte {error.start}): convert it or leave it out of data.include"
        ) from None
    if not name.endswith(".jsonl"):
        return [text] if text else []
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)[text_field]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{name}:{number} is no JSON object with {text_field!r}: set data.text_field") from None
        if not isinstance(value, str):
            raise DataError(f"{name}:{number}: {text_field!r} is not a text but {type(value).__name__}")
        found += [value] if value else []
    return found


def _digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()}"
