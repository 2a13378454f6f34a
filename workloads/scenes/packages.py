"""Packages of pictures, pinned by their digests: fetched once on a machine, and unpacked below the cache folder."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from workloads.errors import DataError
from workloads.folders import cache_folder

COMMAND_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 60.0
"""Of a server, for each piece."""
PIECE = 1 << 20


@dataclass(frozen=True)
class Package:
    """An archive, and what of it is wanted."""

    name: str
    megabytes: int
    sha256: str
    command: tuple[str, ...]
    """Puts the archive into the folder where it is started."""
    urls: tuple[str, ...]
    """Where the same bytes are, once the command's own server has another version."""
    inside: str
    """The folder in the archive; files above it are left out."""
    wanted: tuple[str, ...]
    """Endings of file names."""
    instead: str
    """What to do where it can't be had."""


STAMPS = Package(
    name="tuxpaint-stamps-default",
    megabytes=161,
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    command=("apt-get", "download", "tuxpaint-stamps-default"),
    urls=(
        "https://deb.debian.org/debian/pool/main/t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
        "https://snapshot.debian.org/file/86ff15e81cc37ba8d1ea628a17d4a111d6140a42",  # by SHA-1: it stays for ever
    ),
    inside="usr/share/tuxpaint/stamps",
    wanted=(".png", ".txt"),
    instead="write data.source: scenes:emoji, which comes from npm, or scenes:digits, which needs no network",
)
"""Photographs and drawings with captions, GPL-2."""

EMOJI = Package(
    name="emoji-datasource-google",
    megabytes=74,
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    command=("npm", "pack", "emoji-datasource-google@16.0.0"),
    urls=("https://registry.npmjs.org/emoji-datasource-google/-/emoji-datasource-google-16.0.0.tgz",),
    inside="package/img/google/64",
    wanted=(".png",),
    instead="write data.source: scenes:stamps, which comes from Debian, or scenes:digits, which needs no network",
)
"""Noto's drawings. The package `openmoji` has none but SVG, which Pillow does not read."""


def unpacked(package: Package, say: Callable[[str], None] = print) -> Path:
    """The folder with the package's files: from the cache, else fetched.

    Raises:
        DataError: it can't be had, or written.
    """
    folder = cache_folder() / f"{package.name}-{package.sha256[:16]}"
    if folder.is_dir():
        return folder
    say(f"fetching {package.name}, {package.megabytes} MB, once on this machine")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="aside-", dir=folder.parent) as aside:
            archive = _fetched(package, Path(aside, "fetched"))
            out = Path(aside, "unpacked")
            unpack(archive, package, out)
            _put_in_place(out, folder)
    except OSError as error:
        raise DataError(f"can't write the cache {folder.parent}: {error.strerror}; set SPOT_CACHE_DIR") from error
    return folder


def _put_in_place(out: Path, folder: Path) -> None:
    """By a rename: a folder of the name is whole."""
    try:
        out.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker
            raise


def _fetched(package: Package, folder: Path) -> Path:
    """The archive, proved by its digest, whichever way it came."""
    troubles = []
    for way, fetch in _ways(package):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            fetch(folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else None
            troubles.append(f"{way}: {said[0] if said else error}")
            continue
        for archive in folder.iterdir():
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == package.sha256:
                return archive
            troubles.append(f"{way}: another version, sha256 {digest}")
    raise DataError(
        f"{package.name} can't be fetched ({'; '.join(troubles)}). It needs the network: allow it, put a copy of the "
        f"cache folder on this machine and set SPOT_CACHE_DIR, or {package.instead}"
    )


def _ways(package: Package) -> Iterator[tuple[str, Callable[[Path], object]]]:
    if shutil.which(package.command[0]):
        yield (
            " ".join(package.command),
            lambda folder: subprocess.run(
                package.command, cwd=folder, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
            ),
        )
    for url in package.urls:
        yield url, partial(_download, url)


def _download(url: str, folder: Path) -> None:
    with (
        urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as reply,  # noqa: S310 - they are ours, and https
        (folder / "archive").open("wb") as out,
    ):
        shutil.copyfileobj(reply, out, PIECE)


def unpack(archive: Path, package: Package, out: Path) -> None:
    """Write the wanted files of a .deb or .tgz. Raises DataError: none is in it."""
    inside, count = PurePosixPath(package.inside), 0
    with archive.open("rb") as file, tarfile.open(fileobj=_tar_of(file), mode="r|*") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.suffix not in package.wanted or not name.is_relative_to(inside):
                continue
            content = tar.extractfile(member)
            if content is None or ".." in name.parts:
                continue
            path = out / name.relative_to(inside)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as written:
                shutil.copyfileobj(content, written)
            count += 1
    if not count:
        raise DataError(f"{archive.name} of {package.name} has no {' or '.join(package.wanted)} in {package.inside}")


def _tar_of(file: IO[bytes]) -> IO[bytes]:
    """The tar file of an archive, at its start: a .deb is an `ar` of three members, its files in data.tar.*"""
    if file.read(8) != b"!<arch>\n":
        file.seek(0)
        return file
    while len(header := file.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").rstrip(" /"), int(header[48:58])
        if name.startswith("data.tar"):
            return file  # as a stream, it ends where the tar ends
        file.seek(size + size % 2, io.SEEK_CUR)
    raise DataError("the .deb has no data.tar: it is damaged")
