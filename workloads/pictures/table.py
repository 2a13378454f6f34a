"""Samples on this machine's disk: records, tokens and lengths by number, so that none is read to get to another.

A folder of the cache, made once: `records` and `ids`, one after the other, with where each begins; read from disk as
they are needed. No picture is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.pictures.batch import DataError, Image, Sample, Shape, Text
from workloads.pictures.text import Encode, encode, parts

FORMAT = 1
_AT_ONCE = 512
_FACTS = "facts.json"
_ARRAYS = {
    "records": "u1",
    "records_at": "i8",
    "ids": "u4",
    "learnt": "u1",
    "ids_at": "i8",
    "images": "i4",
    "targets": "i4",
}


@dataclass(frozen=True)
class Facts:
    """What is known about a table, kept beside it."""

    samples: int
    images: int
    digest: str
    """Of all that is learnt from: records, tokens, and the pictures' checksums."""
    cut_samples: int
    """Longer than a row: their last turns are left out."""
    cut_turns: int


@dataclass(frozen=True)
class Table:
    """Samples by number."""

    folder: Path
    facts: Facts

    def __deepcopy__(self, _: dict[int, Any]) -> Table:
        return self  # nobody writes to it, and it may be larger than memory

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "facts": self.facts}  # a worker opens the files for itself

    def __len__(self) -> int:
        return self.facts.samples

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: _open_array(self.folder / name, dtype) for name, dtype in _ARRAYS.items()}

    def sample(self, row: int) -> Sample:
        at = self._arrays["records_at"]
        key, images, turns, facts = json.loads(self._arrays["records"][at[row] : at[row + 1]].tobytes())
        return Sample(
            key, tuple(Image(*image) for image in images), tuple((asked, said) for asked, said in turns), facts
        )

    def text(self, row: int) -> Text:
        at, images = self._arrays["ids_at"], self._arrays["images"]
        span = slice(at[row], at[row + 1])
        learnt = self._arrays["learnt"][span].astype(bool).tolist()
        return Text(tuple(self._arrays["ids"][span].tolist()), tuple(learnt), int(images[row]))

    def length(self, row: int, tokens_per_image: int) -> int:
        """Places in a row of a batch."""
        at = self._arrays["ids_at"]
        return int(at[row + 1] - at[row]) + int(self._arrays["images"][row]) * (tokens_per_image - 1)

    def targets(self, row: int) -> int:
        """Labels that the shifted loss counts."""
        return int(self._arrays["targets"][row])


def open_table(folder: Path) -> Table | None:
    """What is in the cache; None when it is missing or was damaged: then it is made again."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
        if facts.pop("sha256") == {name: _sha256(folder / name) for name in _ARRAYS}:
            return Table(folder, Facts(**facts))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def build_table(folder: Path, samples: Iterator[Sample], tokens_of: Encode, shape: Shape) -> Table:
    """Make it of `samples`.

    Raises:
        DataError: a sample can't be learnt from, there is none, or the cache can't be written.
    """
    with _aside(folder) as aside:
        facts = _write(aside, samples, tokens_of, shape)
        sums = {name: _sha256(aside / name) for name in _ARRAYS}
        (aside / _FACTS).write_text(json.dumps(asdict(facts) | {"sha256": sums}))
    return Table(folder, facts)


def fetch_table(folder: Path, fetch: Callable[[Path], bool]) -> Table | None:
    """What `fetch` fills a folder with; None where it has none, or not a whole one. Raises DataError."""
    with _aside(folder) as aside:
        fetch(aside)
    return open_table(folder)


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder to write to, which is renamed if there is a table in it: one of the name `folder` is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="aside-", dir=folder.parent))
        try:
            yield aside
            if open_table(aside) and not open_table(folder):  # else another process was quicker with the same samples
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise DataError(f"can't write the cache {folder.parent}: {error.strerror}; set SPOT_CACHE_DIR") from error


def _write(folder: Path, samples: Iterator[Sample], tokens_of: Encode, shape: Shape) -> Facts:
    records_at, ids_at = array("q", [0]), array("q", [0])
    images, targets = array("i"), array("i")
    cut_samples = cut_turns = 0
    seen = hashlib.sha256()
    with (
        (folder / "records").open("wb") as records,
        (folder / "ids").open("wb") as ids,
        (folder / "learnt").open("wb") as learnt,
    ):
        while some := list(islice(samples, _AT_ONCE)):
            texts = [parts(sample) for sample in some]
            tokens = iter(tokens_of([text for each in texts for text in each]))
            for sample, each in zip(some, texts, strict=True):
                text, turns = encode(sample, list(islice(tokens, len(each))), shape)
                cut_samples += turns < len(sample.turns)
                cut_turns += len(sample.turns) - turns
                kept = [_fields(image) for image in sample.images[: text.images]]  # those of turns that are left
                record = json.dumps([sample.key, kept, sample.turns[:turns], sample.facts], ensure_ascii=False)
                line, numbers = record.encode(), np.asarray(text.ids, dtype="u4")
                records.write(line)
                ids.write(numbers.tobytes())
                learnt.write(bytes(text.learnt))
                seen.update(line + numbers.tobytes() + bytes(text.learnt))
                records_at.append(records_at[-1] + len(line))
                ids_at.append(ids_at[-1] + len(numbers))
                images.append(text.images)
                targets.append(text.targets)
    for name, values in (("records_at", records_at), ("ids_at", ids_at), ("images", images), ("targets", targets)):
        (folder / name).write_bytes(values.tobytes())
    if not images:
        raise DataError("there are no records")
    return Facts(len(images), sum(images), seen.hexdigest(), cut_samples, cut_turns)


def _fields(image: Image) -> tuple[Any, ...]:
    return image.file, image.size, image.crc, image.start, image.member


def _open_array(path: Path, dtype: str) -> npt.NDArray[Any]:
    if not path.stat().st_size:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
