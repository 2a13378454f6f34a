"""Arenas: their memory is there before it is needed."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from agent.arena import Arena

SIZE = 16 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage")


def smaps_of(arena: Arena) -> str:
    """What the kernel says about the arena's mapping."""
    inode = os.fstat(arena.fd).st_ino
    entries, current = [], ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line[0].isupper():  # a mapping's first line: addresses, mode, offset, device, inode, name
            current = line.split()[4]
        if current == str(inode):
            entries.append(line)
    return "\n".join(entries)


def test_a_prefaulted_arena_is_filled_without_a_page_fault() -> None:
    arena = Arena.create(SIZE)
    arena.prefault()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for start in range(0, SIZE, 4096):
        arena.view[start] = 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < SIZE // 4096 // 10
    arena.close()


@pytest.mark.skipif(not THP.exists(), reason="this kernel has no huge pages")
@pytest.mark.parametrize("side", ["created", "adopted"])
def test_both_sides_ask_for_huge_pages(side: str) -> None:
    arena = Arena.create(SIZE)
    if side == "adopted":
        arena = Arena.adopt(os.dup(arena.fd))
    flags = next(line for line in smaps_of(arena).splitlines() if line.startswith("VmFlags:"))
    assert "hg" in flags.split()
    arena.close()
