"""The disk image of a VM with this project installed: Debian, its own kernel, our installer's units, a small trainer.

Made without mounting anything: debootstrap fills a folder, the real installer installs into it, `mkfs.ext4 -d` makes a
file system of it. What it took minutes to make is kept in the user's cache folder, under the digest of what it was made
of: Debian's part by itself, so that a change of ours costs seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.stacks.packages.bundle import build

SUITE = "bookworm"
PYTHON = (3, 11)  # of that suite: the wheels are for this one
PROGRAMS = ("debootstrap", "mkfs.ext4", "qemu-system-x86_64", "unshare", "setpriv")
_INCLUDE = "systemd,systemd-sysv,dbus,udev,python3,python3-venv,initramfs-tools,linux-image-cloud-amd64"
_GUEST = Path(__file__).parent / "guest"
# Only what the emulated machine has: unpacking every driver there is takes emulated seconds.
_INITRAMFS = {
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=lz4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}
_UNITS = ("journal-to-host.service", "who-holds-the-shutdown.service", "how-slow.service", "systemd-networkd.service")
_DISK = "1500M"  # sparse
_DEBOOTSTRAP_S, _STEP_S = 1500, 600
# Mounts and processes of what runs inside end with it, however it ends.
_APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


class ImageError(Exception):
    """The image could not be made; the text says why."""


class NoDebian(ImageError):
    """Debian can't be had here: no mirror in reach, or this root may not do what debootstrap does."""


@dataclass(frozen=True)
class Image:
    """Files of a VM: `disk` is an ext4 file system without partitions, and is never written to."""

    disk: Path
    kernel: Path
    initramfs: Path


def why_not() -> str:
    """Why no image can be made on this machine; empty where one can."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"needs {', '.join(missing)}: apt-get install qemu-system-x86 debootstrap e2fsprogs util-linux"
    if os.geteuid() != 0:
        return "needs root, as debootstrap does"
    if sys.version_info[:2] != PYTHON:
        return (
            f"needs Python {PYTHON[0]}.{PYTHON[1]}, which {SUITE} has: wheels are fetched for the Python that runs this"
        )
    return ""


def make_image() -> Image:
    """The image of the sources as they are now; from the cache where it was made before.

    Raises NoDebian where there is none to be had; ImageError or BundleError where ours is at fault.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spot-training/vm-images"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache):
        for left in cache.glob("building-*"):  # by one that was killed: nobody else builds now
            shutil.rmtree(left)
        base_key = _digest([_INCLUDE, SUITE, *sorted(_INITRAMFS.values())])
        base = cache / f"debian-{base_key}"
        work = cache / "building-bundle"
        bundle = build(work / "small", agent_only=True)
        guest = [path for path in sorted(_GUEST.rglob("*")) if path.is_file()]
        key = _digest([base_key, bundle.name, _DISK, *_UNITS, *(path.name + path.read_text() for path in guest)])
        folder = cache / f"image-{key}"
        if not folder.exists():
            if not base.exists():
                _build(cache, base, _debootstrap)
            for old in cache.glob("image-*"):  # made of sources that are gone
                shutil.rmtree(old)
            _build(cache, folder, lambda aside: _install(base, aside, work))
        shutil.rmtree(work)
    return Image(folder / "disk.img", folder / "vmlinuz", folder / "initrd.img")


def _debootstrap(tree: Path) -> None:
    mirror = _mirror()
    command = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", SUITE, str(tree), *mirror]
    try:
        _run(command, timeout=_DEBOOTSTRAP_S)
    except ImageError as error:
        raise NoDebian(str(error)) from error
    for name, text in _INITRAMFS.items():
        (tree / name).write_text(text)
    _run(["chroot", str(tree), "update-initramfs", "-u", "-k", "all"], timeout=_STEP_S)
    shutil.rmtree(tree / "var/cache/apt/archives")


def _install(base: Path, aside: Path, work: Path) -> None:
    tree = aside / "tree"
    aside.mkdir()
    _run(["cp", "--archive", str(base), str(tree)], timeout=_STEP_S)
    bundle = build(work / "full", agent_only=True, wheelhouse=True)
    unpacked = work / "unpacked"
    with tarfile.open(bundle) as tar:
        tar.extractall(unpacked, filter="data")
    _run([str(unpacked / "install.sh"), "--root", str(tree), "--agent-only", str(unpacked)], timeout=_STEP_S)
    shutil.copytree(_GUEST, tree, dirs_exist_ok=True)
    _run(["systemctl", f"--root={tree}", "enable", *_UNITS], timeout=_STEP_S)
    for name in ("vmlinuz", "initrd.img"):
        (found,) = (tree / "boot").glob(f"{name}-*")
        found.rename(aside / name)
    disk = aside / "disk.img"
    _run(["mkfs.ext4", "-q", "-d", str(tree), str(disk), _DISK], timeout=_STEP_S)
    shutil.rmtree(tree)


def _mirror() -> list[str]:
    """Where this machine gets its own Debian packages from; debootstrap's default elsewhere."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    for line in asked.stdout.splitlines():
        address, *rest = line.split()
        if rest == [SUITE, "main"]:
            return [address]
    return []


def _run(command: Sequence[str], *, timeout: float) -> None:
    try:
        done = subprocess.run(
            [*_APART, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{command[0]} did not end within {timeout:.0f} s") from error
    if done.returncode:
        raise ImageError(f"{' '.join(command[:3])} ... failed:\n" + "\n".join(done.stdout.splitlines()[-8:]))


def _build(cache: Path, target: Path, fill: Callable[[Path], None]) -> None:
    """Made aside and renamed: what is there is whole."""
    aside = cache / f"building-{target.name}"
    try:
        fill(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
