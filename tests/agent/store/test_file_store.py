"""What file:// promises beyond the contract: whole or absent at any kill, nothing left on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.store import Forbidden, NotFound, StoreError, Unavailable, open_store

_MIB = 1 << 20


def _run(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Forks a child for every step (audit event: open, rename, symlink, remove...) of an operation, kills -9 the
# child just before that step, and looks at what is left.
_KILL_AT_EVERY_STEP = """
import itertools, os, signal, sys, tempfile
from pathlib import Path
from agent.store import NotFound, open_store

folder, operation = sys.argv[1:]
old, new = b"old" * 1000, b"new content" * 1000

def act(store):
    if operation == "create":
        store.create("a/target", new, timeout=10)
    elif operation == "replace":
        store.replace("a/target", new, timeout=10)
    elif operation == "copy":
        store.copy("source", "a/target", timeout=10)
    elif operation == "delete":
        store.delete("a/target", timeout=10)

before, after = {
    "create": (None, new), "copy": (None, new), "replace": (old, new), "delete": (old, None)
}[operation]
seen = set()
for step in itertools.count(1):
    store = open_store(f"file://{tempfile.mkdtemp(dir=folder)}")
    store.create("source", new, timeout=10)
    if before is not None:
        store.create("a/target", before, timeout=10)
    child = os.fork()
    if child == 0:
        left = itertools.count(step - 1, -1)
        sys.addaudithook(lambda event, _: next(left) == 0 and os.kill(os.getpid(), signal.SIGKILL))
        act(store)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    try:
        content = store.read("a/target", timeout=10)
    except NotFound:
        content = None
    assert content in (before, after), (step, content[:20])
    assert store.read("source", timeout=10) == new
    seen.add(content)
    act(store)  # a try again gets there
    if os.WIFEXITED(status):
        assert content == after
        break
assert seen == {before, after}
"""


@pytest.mark.parametrize("operation", ["create", "replace", "copy", "delete"])
def test_an_object_is_whole_or_absent_wherever_its_writer_is_killed(operation: str, tmp_path: Path) -> None:
    _run(_KILL_AT_EVERY_STEP, tmp_path, operation)


# SIGXFSZ strikes the writer in the middle of the third write, as abruptly as a power cut.
_KILLED_WHILE_WRITING = """
import resource, signal, sys
from agent.store import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20))
open_store(sys.argv[1]).create("part", bytes(32 << 20), timeout=30)
"""


def test_a_writer_killed_amid_its_bytes_leaves_no_object_and_its_litter_is_swept(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    killed = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, url], timeout=60, check=False)
    assert killed.returncode < 0
    store = open_store(url)
    with pytest.raises(NotFound):
        store.read("part", timeout=5)
    assert store.list(timeout=5) == []

    (litter,) = tmp_path.rglob("*.partial")
    store.check(timeout=5)
    assert litter.exists(), "what may still have a writer is left alone"
    os.utime(litter, (0, 0))
    store.check(timeout=5)
    assert not litter.exists()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root; the size limit is tested in its stead")
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=False)
        if mounted.returncode != 0:
            pytest.skip("this machine does not let us mount a disk")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_with_what_was_needed_and_nothing_is_left_behind(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}/checkpoints")
    store.create("old", bytes(4 * _MIB), timeout=5)
    with pytest.raises(StoreError) as raised:
        store.create("new", bytes(16 * _MIB), timeout=5)
    assert not isinstance(raised.value, Unavailable), "a full disk does not get better by trying again"
    assert f"{small_disk}/checkpoints/new" in str(raised.value)
    assert "16,777,216 bytes needed" in str(raised.value)
    assert [each.name for each in store.list(timeout=5)] == ["old"]
    # The room that the failed try took is free again.
    assert store.create("other", bytes(6 * _MIB), timeout=5).size == 6 * _MIB


_TOO_LARGE = """
import resource, sys
from pathlib import Path
from agent.store import StoreError, open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
store = open_store(sys.argv[1])
try:
    store.create("part", bytes(3 << 20), timeout=10)
except StoreError as error:
    assert "3,145,728 bytes needed" in str(error), error
else:
    raise SystemExit("it was stored")
store.create("part", bytes(1 << 20), timeout=10)
assert not list(Path(sys.argv[1][7:]).rglob("*.partial"))
"""


def test_a_file_size_limit_is_explained_and_nothing_is_left_behind(tmp_path: Path) -> None:
    _run(_TOO_LARGE, f"file://{tmp_path}")


_FORBIDDEN = """
import os, sys
import agent.store.file
from agent.store import Forbidden, open_store
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    open_store(sys.argv[1]).create("part", b"x", timeout=10)
except Forbidden as error:
    assert sys.argv[1][7:] in str(error), error
else:
    raise SystemExit("it was stored")
"""


def test_a_folder_that_may_not_be_written_is_forbidden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        _run(_FORBIDDEN, f"file://{folder}")
        Path(folder).chmod(0o755)


def test_content_lost_under_its_name_is_corrupt_not_absent(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.create("part", b"x", timeout=5)
    (tmp_path / "part").resolve().unlink()
    with pytest.raises(StoreError, match="lost its content") as raised:
        store.read("part", timeout=5)
    assert not isinstance(raised.value, (NotFound, Forbidden))


def test_other_programs_read_an_object_as_a_plain_file(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/run").create("model/weights.bin", b"weights", timeout=5)
    assert (tmp_path / "run/model/weights.bin").read_bytes() == b"weights"


def test_a_plain_file_in_the_folder_is_no_object_and_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    store = open_store(f"file://{tmp_path}")
    assert store.list(timeout=5) == []
    with pytest.raises(StoreError, match=r"not one of this store's objects"):
        store.create("notes.txt", b"ours", timeout=5)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_folder_can_be_moved_and_opened_at_another_depth(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/one/run").create("a/b", b"x", timeout=5)
    (tmp_path / "one").rename(tmp_path / "two")
    parent = open_store(f"file://{tmp_path}/two")
    assert [each.name for each in parent.list(timeout=5)] == ["run/a/b"]
    assert parent.read("run/a/b", timeout=5) == b"x"
