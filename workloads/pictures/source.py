"""One part of the data as it is trained on: some of a table's samples, and how their pictures are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from spot_training.data.order import Order, derive

from workloads.pictures.batch import Image, Sample, Text
from workloads.pictures.reader import Reader
from workloads.pictures.table import Table

_CHUNK = 65_536


@dataclass(frozen=True)
class Source:
    """Samples by number; lengths and targets without reading a picture."""

    name: str
    table: Table
    reader: Reader
    rows: npt.NDArray[np.int64] | None = None
    """Which of the table's, [samples]; None: all, as they lie."""
    weight: float = 1.0
    """Of a mixture."""

    def __deepcopy__(self, _: dict[int, Any]) -> Source:
        return self

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    @property
    def digest(self) -> str:
        """Another one when the samples are other ones."""
        rows = b"" if self.rows is None else self.rows.tobytes()
        return hashlib.sha256(self.table.facts.digest.encode() + rows).hexdigest()

    def sample(self, row: int) -> Sample:
        return self.table.sample(self._at(row))

    def text(self, row: int) -> Text:
        return self.table.text(self._at(row))

    def length(self, row: int, tokens_per_image: int) -> int:
        """Places in a row of a batch."""
        return self.table.length(self._at(row), tokens_per_image)

    def targets(self, row: int) -> int:
        """Labels that the shifted loss counts."""
        return self.table.targets(self._at(row))

    def read(self, image: Image) -> bytes:
        """Raises DataError; Broken: it will never be read."""
        return self.reader.read(image)

    def split(self, fraction: float) -> tuple[Source, Source | None]:
        """What is trained on, and what is kept for evaluation: the same samples in every run. None: nothing is."""
        held = max(1, round(len(self) * fraction)) if fraction else 0
        if not held or held >= len(self):
            return self, None
        order = Order(len(self), seed=derive("held out"), epoch=0)
        rows = np.concatenate(
            [order.rows(start, min(len(self), start + _CHUNK)) for start in range(0, len(self), _CHUNK)]
        ).astype(np.int64)
        parts = [
            Source(self.name, self.table, self.reader, np.sort(part), self.weight)
            for part in (rows[held:], rows[:held])
        ]
        return parts[0], parts[1]

    def _at(self, row: int) -> int:
        return row if self.rows is None else int(self.rows[row])
