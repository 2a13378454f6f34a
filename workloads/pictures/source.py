"""A folder with records and pictures, as its samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workloads.pictures.batch import DataError, Sample, Shape, Text
from workloads.pictures.records import lines, parse
from workloads.pictures.text import Encode, fit


class Source(Protocol):
    """Samples by number; lengths and targets without reading a picture."""

    name: str
    digest: str
    """Another one when the samples are other ones."""

    def __len__(self) -> int: ...

    def sample(self, row: int) -> Sample: ...

    def text(self, row: int) -> Text: ...

    def length(self, row: int) -> int:
        """Places in a row of a batch."""

    def targets(self, row: int) -> int:
        """Labels that the shifted loss counts."""


@dataclass(frozen=True)
class LocalImage:
    """A picture in a folder."""

    name: str
    path: Path

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"can't read the picture {self.path}: {error.strerror}") from error


class Folder:
    """The records of one file, with pictures relative to its folder.

    Raises:
        DataError: it can't be read, or a record is none.
    """

    def __init__(self, path: Path, tokens_of: Encode, shape: Shape) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"can't read the records {path}: {error.strerror}; correct data.source") from error
        self.name = path.name
        self.samples: list[Sample] = []
        for key, value in lines(path.name, content):
            record = parse(key, value)
            images = tuple(LocalImage(name, path.parent / name) for name in record.images)
            self.samples.append(Sample(key, images, record.turns, record.facts))
        if not self.samples:
            raise DataError(f"{path} has no records")
        self.texts: Sequence[Text] = [fit(sample, tokens_of, shape) for sample in self.samples]
        self.tokens_per_image = shape.tokens_per_image
        seen = hashlib.sha256(content)
        seen.update(json.dumps([text.ids for text in self.texts]).encode())
        self.digest = seen.hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, row: int) -> Sample:
        return self.samples[row]

    def text(self, row: int) -> Text:
        return self.texts[row]

    def length(self, row: int) -> int:
        return self.texts[row].length(self.tokens_per_image)

    def targets(self, row: int) -> int:
        return self.texts[row].targets
