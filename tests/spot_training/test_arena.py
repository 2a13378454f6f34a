"""Arenas: memory that both processes see, that nothing on disk stands for, and that is there before it is needed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from spot_training.protocol.arena import Arena, ArenaError, available_memory

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SIZE = 16 * MIB
THP = Path("/sys/kernel/mm/transparent_hugepage")

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="private mounts need root",
)


def run_alone(program: str, *, mounts: str = "") -> str:
    """What `program` prints in an interpreter of its own, after the shell commands `mounts` in private mounts."""
    command = [sys.executable, "-c", program]
    if mounts:
        command = ["unshare", "-m", "sh", "-ec", f'{mounts}\nexec "$@"', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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


def test_both_sides_see_the_same_bytes_and_they_outlive_the_side_that_made_them() -> None:
    arena = Arena.create(3 * MIB + 5)
    other = Arena.adopt(os.dup(arena.fd))
    assert other.size == arena.size == 3 * MIB + 5
    arena.view[-1] = 7
    assert other.view[-1] == 7
    arena.close()
    assert other.view[-1] == 7
    other.close()


def test_closing_while_a_view_is_in_use_neither_fails_nor_takes_its_bytes_away() -> None:
    arena = Arena.create(MIB)
    arena.view[10] = 7
    with arena.view[:100] as part:
        arena.close()
        assert part[10] == 7
    arena.close()


def test_prefaulting_takes_the_memory_and_keeps_what_is_there() -> None:
    arena = Arena.create(SIZE)
    assert os.fstat(arena.fd).st_blocks == 0
    arena.view[0] = 7
    arena.prefault()
    assert os.fstat(arena.fd).st_blocks * 512 >= SIZE
    assert arena.view[0] == 7
    arena.close()


def test_prefaulting_stops_when_there_is_no_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spot_training.protocol.arena._PREFAULT_STEP", 2 * MIB)
    asked = iter([False, False, True])
    arena = Arena.create(SIZE)
    arena.prefault(lambda: next(asked))
    assert 4 * MIB <= os.fstat(arena.fd).st_blocks * 512 < SIZE
    arena.close()


def test_an_arena_larger_than_the_free_memory_is_refused_with_what_to_do() -> None:
    size = available_memory() + (1 << 40)
    with pytest.raises(ArenaError, match="is left on this machine or in this container: use a machine with more"):
        Arena.create(size)


def test_what_the_system_refuses_is_an_arena_error_and_leaks_nothing() -> None:
    said = run_alone(
        """
import os, resource
from spot_training.protocol.arena import Arena, ArenaError
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
Arena.create(8 << 20).close()
before = len(os.listdir("/proc/self/fd"))
try:
    Arena.create(128 << 20)
except ArenaError as error:
    print(error, len(os.listdir("/proc/self/fd")) - before)
"""
    )
    assert said.startswith("no shared memory of 0.13 GB")
    assert said.endswith(" 0")


@needs_mounts
def test_what_any_cgroup_above_leaves_is_all_there_is() -> None:
    said = run_alone(
        "from spot_training.protocol.arena import available_memory; print(available_memory())",
        mounts="""
at=/sys/fs/cgroup
mount -t tmpfs none $at
mkdir -p $at/pod/job
echo max > $at/pod/job/memory.max
echo 1 > $at/pod/job/memory.current
echo 30000000 > $at/pod/memory.max
echo 10000000 > $at/pod/memory.current
echo 0::/pod/job > $at/mine
mount --bind $at/mine /proc/$$/cgroup
""",
    )
    assert said == "20000000"


@needs_mounts
def test_a_full_dev_shm_is_no_matter() -> None:
    said = run_alone(
        """
import os
from spot_training.protocol.arena import Arena
arena = Arena.create(64 << 20)
arena.prefault()
print(os.statvfs("/dev/shm").f_bavail, os.fstat(arena.fd).st_blocks * 512 >> 20)
""",
        mounts="mount -t tmpfs -o size=1m none /dev/shm; head -c 2000000 /dev/zero > /dev/shm/full || true",
    )
    assert said == "0 64"
