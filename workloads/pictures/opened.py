"""What a run file's `data` names: found, made into tables once on this machine, and opened for training.

found = find(run.data)
opened = found.open(tokens_of, tokenizer="qwen3 of 2025", shape=shape)   # found.texts() trains a tokenizer before
batches = Batches(opened.train, shape, ...)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from agent.config import Data
from agent.config.pictures import Pictures
from workloads.folders import cache_folder, matches
from workloads.kept import Kept
from workloads.pictures.batch import DataError, Sample, Shape
from workloads.pictures.cache import Cache
from workloads.pictures.formats import read_file, read_texts
from workloads.pictures.hugging_face import Rows
from workloads.pictures.places import Entry, Place, open_place
from workloads.pictures.reader import PlaceReader, Reader
from workloads.pictures.source import Source
from workloads.pictures.table import FORMAT, Table, build_table, fetch_table, open_table
from workloads.pictures.text import Encode

CACHE_GB = 20.0


@dataclass(frozen=True)
class Files:
    """Files of records in a folder or bucket, in the order of their names."""

    name: str
    weight: float
    place: Place
    entries: dict[str, Entry]
    files: tuple[str, ...]
    may_lack: bool

    def stamp(self) -> object:
        """Another one when the samples may be others."""
        shards = all(file.endswith(".tar") for file in self.files)
        seen = self.files if shards else sorted(self.entries)  # pictures in shards have no files of their own
        return [self.may_lack, *((file, self.entries[file].stamp) for file in (*self.files, *seen))]

    def samples(self) -> Iterator[Sample]:
        for file in self.files:
            yield from read_file(self.place, file, self.entries, may_lack=self.may_lack)

    def texts(self) -> Iterator[str]:
        for file in self.files:
            yield from read_texts(self.place, file, self.entries)


@dataclass(frozen=True)
class Set:
    """A Hugging Face data set."""

    name: str
    rows: Rows
    weight: float = 1.0

    def stamp(self) -> object:
        return self.rows.stamp

    def samples(self) -> Iterator[Sample]:
        yield from self.rows.samples()

    def texts(self) -> Iterator[str]:
        for sample in self.rows.samples():
            for turn in sample.turns:
                yield from turn


@dataclass(frozen=True)
class Opened:
    """What is trained on, and what is evaluated on: () without any."""

    train: tuple[Source, ...]
    held: tuple[Source, ...]

    def told(self) -> str:
        """For the trainer's first line."""
        facts = {source.table.folder: source.table.facts for source in (*self.train, *self.held)}.values()
        samples = sum(len(source) for source in self.train)
        text = f"{samples} samples with {sum(each.images for each in facts)} pictures"
        if cut := sum(each.cut_turns for each in facts):
            text += f"; {cut} turns of {sum(each.cut_samples for each in facts)} samples don't fit into a row, left out"
        return text


@dataclass(frozen=True)
class Found:
    """What there is, by its names: nothing but files of records is read."""

    data: Data
    train: tuple[Files | Set, ...]
    held: tuple[Files | Set, ...]

    def texts(self) -> Iterator[str]:
        """All questions and answers that are trained on, to train a tokenizer on. Raises DataError."""
        for part in self.train:
            yield from part.texts()

    def open(self, tokens_of: Encode, *, tokenizer: str, shape: Shape, kept: Kept | None = None) -> Opened:
        """`tokenizer`: another text for another tokenizer. Tables are made where neither this machine nor the run's
        bucket (`kept`) has them: there every shard is read once, and not again by the VMs that follow.

        Raises:
            DataError: a sample can't be learnt from.
        """
        pictures = self.data.pictures or Pictures()
        cache = _cache(self.data, pictures)

        def source(part: Files | Set) -> Source:
            reader: Reader = part.rows if isinstance(part, Set) else PlaceReader(part.place, cache)
            return Source(part.name, _table(part, tokens_of, tokenizer, shape, kept), reader, weight=part.weight)

        train = [source(part) for part in self.train]
        if self.held:
            return Opened(tuple(train), tuple(source(part) for part in self.held))
        pairs = [each.split(self.data.eval_fraction) for each in train]
        return Opened(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs if pair[1]))


def find(data: Data) -> Found:
    """List what `data` names.

    Raises:
        DataError: it can't be listed, or there are no such files.
    """
    pictures = data.pictures or Pictures()
    if data.source.startswith("hf://"):
        return Found(data, (Set(data.source, Rows(data.source)),), ())
    place = open_place(data.source)
    entries = place.entries()

    def files(records: Sequence[str], weight: float = 1.0) -> Files:
        names = tuple(sorted(name for name in entries if matches(name, records)))
        if not names:
            raise DataError(f"{data.source} has no {', '.join(records)}: correct data.pictures.records, or the source")
        may_lack = pictures.on_broken == "skip"
        return Files(", ".join(records), weight, place, entries, names, may_lack)

    parts = [(part.records, part.weight) for part in pictures.mixture] or [(pictures.records, 1.0)]
    held = (files(pictures.eval_records),) if pictures.eval_records else ()
    return Found(data, tuple(files(*part) for part in parts), held)


def _cache(data: Data, pictures: Pictures) -> Cache | None:
    size = CACHE_GB if pictures.cache_gb is None else pictures.cache_gb
    if not data.source.startswith("gs://") or not size:
        return None
    return Cache(cache_folder() / "pictures", int(size * 1e9), data.source)


def _table(part: Files | Set, tokens_of: Encode, tokenizer: str, shape: Shape, kept: Kept | None) -> Table:
    shaped = [shape.tokens_per_image, shape.sequence_length, shape.image_token, shape.end_token]
    parts = [FORMAT, part.name, part.stamp(), tokenizer, shaped]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    if isinstance(part, Set) or not part.place.url.startswith("gs://"):
        kept = None  # what is at hand has another stamp on another machine
    folder = cache_folder() / f"samples-{key}"
    table = open_table(folder)
    if table is None and kept is not None:
        table = fetch_table(folder, partial(kept.fetch, folder.name))
    table = table or build_table(folder, part.samples(), tokens_of, shape)
    if kept is not None:
        kept.keep(folder.name, folder)
    return table
