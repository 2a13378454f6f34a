"""Code: the user's program, fetched by its digest, verified, unpacked aside and then renamed.

Its files are read-only, so that what runs is what was packed; its folders are not, for programs write logs and outputs
beside themselves. It is always in the same folder: a path that a checkpoint remembers is there on the next VM too.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import time
from pathlib import Path

import structlog

from agent.program.trouble import PrepareError
from agent.store import Corrupt, NotFound, open_store

log = structlog.get_logger()

_FETCH_TIMEOUT_S = 300.0


def digest_of(address: str) -> str:
    """The digest that packed code is named by."""
    return address.rpartition("/")[2].removesuffix(".tar.gz")


def fetch_code(address: str, folder: Path) -> None:
    """Put the code that is at `address` into `folder`; nothing is done where it is there already. Blocks.

    Raises StoreError where the bucket does not give it, PrepareError where it can't be unpacked.
    """
    begun, digest = time.monotonic(), digest_of(address)
    marker = folder.with_name(f"{folder.name}.sha256")
    if folder.is_dir() and marker.exists() and marker.read_text() == digest:
        return
    place, _, name = address.rpartition("/")
    try:
        packed = open_store(place).read(name, timeout=_FETCH_TIMEOUT_S)
    except NotFound as error:
        raise NotFound(f"the run's code is not in the bucket ({error}): deploy it again") from error
    if hashlib.sha256(packed).hexdigest() != digest:
        raise Corrupt(f"{address} is not what its name says: delete it, and deploy again")
    aside, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    for stale in (aside, old):
        shutil.rmtree(stale, ignore_errors=True)
    aside.mkdir(parents=True)
    # The program: Debian 12's Python has no safe way to unpack. It leaves out what would lead outside by itself.
    unpack = ["tar", "-xz", "--no-same-owner", "-C", str(aside)]
    done = subprocess.run(unpack, input=packed, capture_output=True, timeout=_FETCH_TIMEOUT_S, check=False)
    if done.returncode:
        raise PrepareError(f"{address} can't be unpacked: {done.stderr.decode(errors='replace').strip()}")
    for path in aside.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode) & 0o555)
    marker.unlink(missing_ok=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    marker.write_text(digest)
    shutil.rmtree(old, ignore_errors=True)
    log.info("code_fetched", folder=str(folder), digest=digest, bytes=len(packed), seconds=_since(begun))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
