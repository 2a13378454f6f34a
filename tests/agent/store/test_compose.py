"""Joining objects where they are: whole, checked and create-only, whichever the store."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from crc32c import crc32c

from agent.store import COMPOSED_AT_ONCE, AlreadyExists, Corrupt, Forbidden, NotFound, Store, Unavailable
from agent.store.crc import combine
from tests.agent.store.conftest import BucketPlace

T = 10.0
PARTS = [random.Random(each).randbytes(1000 + each) for each in range(COMPOSED_AT_ONCE)]
WHOLE = b"".join(PARTS)
NAMES = [f"parts/{each}" for each in range(COMPOSED_AT_ONCE)]
WANTED = {"size": len(WHOLE), "crc32c": crc32c(WHOLE)}


@pytest.fixture
def parts(store: Store) -> Store:
    for name, part in zip(NAMES, PARTS, strict=True):
        store.create(name, part, timeout=T)
    return store


def test_what_is_joined_is_its_parts_in_order_and_they_stay(parts: Store) -> None:
    made = parts.compose("whole", NAMES, **WANTED, timeout=T)
    assert (made.name, made.size, made.crc32c) == ("whole", len(WHOLE), crc32c(WHOLE))
    assert parts.read("whole", timeout=T) == WHOLE
    assert [parts.read(name, timeout=T) for name in NAMES] == PARTS
    assert parts.compose("one", NAMES[:1], size=1000, crc32c=crc32c(PARTS[0]), timeout=T).size == 1000
    parts.delete_many(NAMES, timeout=T)
    assert parts.read("whole", timeout=T) == WHOLE


def test_joining_again_is_success_and_never_overwrites(parts: Store) -> None:
    made = parts.compose("whole", NAMES, **WANTED, timeout=T)
    assert parts.compose("whole", NAMES, **WANTED, timeout=T) == made
    with pytest.raises(AlreadyExists):
        parts.compose("whole", NAMES[:1], size=1000, crc32c=crc32c(PARTS[0]), timeout=T)
    assert parts.read("whole", timeout=T) == WHOLE


def test_a_part_that_is_missing_or_another_is_an_error(parts: Store) -> None:
    with pytest.raises(NotFound):
        parts.compose("whole", [*NAMES[:-1], "parts/none"], **WANTED, timeout=T)
    with pytest.raises(Corrupt, match="other content"):
        parts.compose("spent", NAMES[:-1], **WANTED, timeout=T)


def test_a_join_whose_answer_was_lost_succeeds(bucket: BucketPlace) -> None:
    bucket.store.create("part", b"x", timeout=T)
    bucket.server.fault("status", name="whole", action="create", after_done=True)
    assert bucket.store.compose("whole", ["part"], size=1, crc32c=crc32c(b"x"), timeout=T).size == 1
    assert bucket.server.pending_faults() == []
    bucket.server.fault("status", name="other", action="create", status=403, count=None)
    with pytest.raises(Forbidden):
        bucket.store.compose("other", ["part"], size=1, crc32c=crc32c(b"x"), timeout=T)
    bucket.server.outage("unavailable")
    with pytest.raises(Unavailable):
        bucket.store.compose("third", ["part"], size=1, crc32c=crc32c(b"x"), timeout=0.2)


def test_a_checksum_of_what_is_joined_needs_no_reading_of_it() -> None:
    rng = random.Random(0)
    for _ in range(50):
        cuts = sorted([0, len(WHOLE), *(rng.randrange(len(WHOLE)) for _ in range(6))])
        pieces = [WHOLE[begin:end] for begin, end in pairwise(cuts)]
        assert combine((crc32c(piece), len(piece)) for piece in pieces) == crc32c(WHOLE)
    assert combine([]) == crc32c(b"") == combine([(0, 0)])
