"""A picture's bytes: from the cache, else from where they are, held against the checksum that they were listed with."""

from __future__ import annotations

from typing import Protocol

from crc32c import crc32c

from workloads.pictures.batch import LACKING, DataError, Image
from workloads.pictures.cache import Cache
from workloads.pictures.decode import Broken
from workloads.pictures.places import Gone, Place


class Reader(Protocol):
    """Reads pictures of one source. Called by several threads; goes to workers."""

    def read(self, image: Image) -> bytes:
        """Raises DataError; Broken: it will never be read."""


class PlaceReader:
    """Of files in a folder or bucket, and of members of shards there."""

    def __init__(self, place: Place, cache: Cache | None) -> None:
        self.place, self.cache = place, cache

    def read(self, image: Image) -> bytes:
        if image.size == LACKING:
            raise Broken(f"{image.name} is not in {self.place.url}")
        if self.cache and (known := self.cache.get(image)) is not None:
            return known
        try:
            content = self.place.read(image.file, image.start, image.size)
        except Gone as error:
            raise Broken(str(error)) from error
        if len(content) != image.size or crc32c(content) != image.crc:
            raise DataError(
                f"{image.name} in {self.place.url} is not what it was when the run began: {len(content)} bytes, crc32c "
                f"{crc32c(content):08x}, were {image.size} bytes, crc32c {image.crc:08x}. Put it back, or start a new "
                f"run under another run_id"
            )
        if self.cache:
            self.cache.put(image, content)
        return content
