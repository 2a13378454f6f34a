"""A Hugging Face data set with pictures inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crc32c import crc32c

from workloads.pictures.batch import LACKING, DataError, Image, Sample
from workloads.pictures.decode import Broken
from workloads.pictures.records import parse


class Rows:
    """The rows of `hf://NAME:SPLIT` (train), in their order; each process opens the data set's files for itself.

    A row's columns are a record's keys. Columns of type Image, or lists of it, are its pictures.

    Raises:
        DataError: it can't be loaded.
    """

    def __init__(self, source: str) -> None:
        self.url = source
        self._opened: tuple[int, Any] | None = None
        features = self._rows.features
        self.columns = [name for name, feature in features.items() if _is_picture(feature)]
        self.stamp = str(self._rows._fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None}

    @property
    def _rows(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), _load(self.url))
        return self._opened[1]

    def samples(self) -> Iterator[Sample]:
        """All of them, read once: for the checksums of the pictures. Raises DataError."""
        for number in range(len(self._rows)):
            row = self._rows[number]
            key = f"{self.url}:{number}"
            images = []
            for column in self.columns:
                for place, content in enumerate(_contents(row.pop(column))):
                    size = LACKING if content is None else len(content)
                    images.append(Image(column, size, crc32c(content or b""), number, str(place)))
            record = parse(key, row)
            if record.images:
                raise DataError(f"{key}: image or images is no column of type Image: it is of type {self._types()}")
            yield Sample(key, tuple(images), record.turns, record.facts)

    def _types(self) -> str:
        return ", ".join(str(feature) for name, feature in self._rows.features.items() if name in ("image", "images"))

    def read(self, image: Image) -> bytes:
        name = f"{self.url}:{image.start}, {image.name}"
        if image.size == LACKING:
            raise Broken(f"{name} is empty")
        content = _contents(self._rows[image.start][image.file])[int(image.member)] or b""
        if len(content) != image.size or crc32c(content) != image.crc:
            raise DataError(f"{name} is not what it was when the run began: start a new run under another run_id")
        return content


def _load(source: str) -> Any:
    try:
        import datasets  # noqa: PLC0415 - an extra that other sources do without
    except ImportError as error:
        raise DataError(
            f"data.source {source} needs the datasets library: pip install 'spot-training[huggingface-data]'"
        ) from error
    name, _, split = source.removeprefix("hf://").partition(":")
    try:
        saved = [str(each) for each in (Path(name, split or "train"), Path(name)) if (each / "state.json").exists()]
        load = datasets.load_from_disk if saved else datasets.load_dataset  # as `save_to_disk` left it
        rows = load(saved[0]) if saved else load(name, split=split or "train")
    except (OSError, ValueError) as error:
        raise DataError(f"can't load the dataset {name!r}, split {split or 'train'!r}: {error}") from error
    for column, feature in rows.features.items():
        if _is_picture(feature):  # bytes as they are: no picture is decoded to get at another
            inner = datasets.Image(decode=False)
            one = isinstance(feature, dict | datasets.Image)
            rows = rows.cast_column(column, inner if one else datasets.List(inner))
    return rows


def _is_picture(feature: Any) -> bool:
    """A file of Parquet alone doesn't say Image, but what an Image is made of."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return type(inner).__name__ == "Image" or (isinstance(inner, dict) and inner.keys() == {"bytes", "path"})


def _contents(value: Any) -> list[bytes | None]:
    """Of one picture, or of a list of them. Those that lie beside the data set are read from there."""
    if not isinstance(value, list):
        return [] if value is None else _contents([value])
    return [each["bytes"] if each["bytes"] is not None else _file(each["path"]) for each in value]


def _file(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
