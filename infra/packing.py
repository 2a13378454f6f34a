"""The user's code, packed: what of a folder travels with a run, and what is refused of it.

Git says what does: all that is in its index, and what is new and not excluded by a `.gitignore`; also of a folder that
is no repository. The same files give the same bytes, and the archive is named after them, like the bundle.
What goes into a bucket is read by others and stays: secrets are refused by name, and so is what belongs into a bucket
of data.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, cast

from agent.config import RunConfig
from agent.config.forms import FORMS
from agent.config.refusal import Refusal
from agent.config.sections import ON_THEIR_OWN
from agent.store import open_store

PREFIX = "packages"
"""Where it is in a bucket, beside the bundles."""
LARGEST_FILE = 100 << 20
LARGEST = 1 << 30
NEVER = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"})
"""Folders that no program needs from here, whether a `.gitignore` says so or not."""
OWN_OUT = "out"
"""Where `spot run` writes to by default."""
SECRET_NAMES = (
    *(".env", ".env.*", ".netrc", "_netrc", ".pypirc", ".git-credentials", ".htpasswd", "kaggle.json"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.p12", "*.pfx", "*.ppk", "*.kdbx"),
    *("application_default_credentials.json", "client_secret*.json", "credentials.json", "*.tfstate", "*.tfstate.*"),
)
HARMLESS = ("*.example", "*.sample", "*.template", "*.dist")
_READ_FOR_SECRETS = 2 << 20  # bytes of a text; what is larger is data
_FORMS = [(words, re.compile(pattern)) for _, words, pattern in FORMS]
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\\n|\s)*[A-Za-z0-9+/=]{40}")
_LEAST_LETTERS = 8  # different ones: `hf_xxxxxxxx...` stands for a token, and is none
_GIT_S = 60.0
_UPLOAD_S = 600.0
_MOST_TOLD = 5


class CodeError(Exception):
    """The code can't be packed; the text says why and what to do."""


@dataclass(frozen=True)
class Code:
    """What travels: `files` of `folder`, sorted, links among them; `size` bytes before they are packed. `no_secret`:
    those that the user says hold none, whatever they look like."""

    folder: Path
    files: tuple[str, ...]
    size: int
    no_secret: frozenset[str] = frozenset()

    def told(self) -> str:
        many = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"code: {many} of {self.folder}, {written_size(self.size)}"


def code_of(run: RunConfig) -> Code | None:
    """The code that travels with `run`; None where it has none, or is packed already. Raises CodeError."""
    if run.workload.kind not in ON_THEIR_OWN or run.workload.code is None or run.workload.packed:
        return None
    folder = Path(run.workload.code)
    if not folder.is_dir():
        raise CodeError(f"{folder} is no folder\n    fix: write the folder with your program")
    stays = [folder / OWN_OUT]
    if run.workload.checkpoint_dir is not None:
        stays.append(folder / run.workload.checkpoint_dir)
    if run.checkpoint.bucket.startswith("file://"):
        stays.append(Path(run.checkpoint.bucket.removeprefix("file://")))
    files = tuple(name for name in listed(folder) if not any((folder / name).is_relative_to(one) for one in stays))
    size = sum((folder / name).lstat().st_size for name in files)
    return Code(folder, files, size, frozenset(str(PurePosixPath(name)) for name in run.workload.no_secret))


def refused(code: Code) -> Iterator[Refusal]:
    """What of the code may not travel, the first of each kind by name."""
    links = [name for name in code.files if (code.folder / name).is_symlink() and not _leads_inside(code.folder, name)]
    large = [name for name in code.files if (code.folder / name).lstat().st_size > LARGEST_FILE]
    unsaid = [name for name in code.files if name not in links and name not in code.no_secret]
    secret = [name for name in unsaid if holds_secret(code.folder / name)]
    ignore = "exclude it (in .gitignore)"
    for names, what, fix in (
        (links, "a link that leads out of the folder, to what no VM has", f"put the file itself there, or {ignore}"),
        (
            secret, "a secret, by its name or by what is in it",
            f"what is in a bucket is read by others: {ignore}; is it none, write workload: {{no_secret: [FILE]}}",
        ),
        (large, f"more than {written_size(LARGEST_FILE)}", f"data belongs into a bucket: {ignore}"),
    ):  # fmt: skip
        if names:
            more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
            named = ", ".join(names[:_MOST_TOLD]) + more
            yield Refusal(("workload", "code"), f"{named}: {what}", fix)
    if not large and code.size > LARGEST:
        largest = sorted(code.files, key=lambda name: -(code.folder / name).lstat().st_size)[:_MOST_TOLD]
        yield Refusal(
            ("workload", "code"),
            f"{code.folder} has {written_size(code.size)} to pack, more than {written_size(LARGEST)}; "
            f"the largest: {', '.join(largest)}",
            "exclude what is no code in .gitignore, or name a smaller folder",
        )


def pack_code(code: Code, out: Path) -> Path:
    """Pack it into folder `out`; returns its file, `SHA256.tar.gz`. Raises CodeError."""
    for refusal in refused(code):
        raise CodeError(f"workload.code: {refusal.reason}\n    fix: {refusal.fix}")
    out.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkstemp(dir=out, prefix="code-", suffix=".tmp")[1])
    try:
        with aside.open("wb") as file:
            digest = _Digest(file)
            with (
                gzip.GzipFile("", "wb", 6, cast("IO[bytes]", digest), mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                for name in code.files:
                    _add(tar, code.folder, name)
        done = out / f"{digest.sha256.hexdigest()}.tar.gz"
        aside.chmod(0o644)
        aside.replace(done)
    except OSError as error:
        raise CodeError(f"{code.folder} can't be packed: {error}\n    fix: try again, or exclude the file") from error
    finally:
        aside.unlink(missing_ok=True)
    return done


def listed(folder: Path) -> list[str]:
    """Names of the files and links below `folder` that git would keep, sorted."""
    try:
        found = sorted(_listed(folder))
    except FileNotFoundError:
        raise CodeError("git says what of the code travels, and is not installed\n    fix: install git") from None
    except subprocess.TimeoutExpired:
        raise CodeError(
            f"git did not list {folder} within {_GIT_S:g} s\n    fix: name a smaller folder in workload.code"
        ) from None
    environments = {
        str(PurePosixPath(name).parent) for name in found if PurePosixPath(name).name == "pyvenv.cfg"
    }  # virtual ones, under whatever name
    return [
        name
        for name in found
        if not NEVER.intersection(PurePosixPath(name).parts)
        and not any(name.startswith(f"{one}/") for one in environments)
    ]


def _listed(folder: Path) -> Iterator[str]:
    for name in _ask_git(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a repository of its own: a submodule, or one that lies here
            if path.name not in NEVER:
                yield from (f"{name.rstrip('/')}/{inner}" for inner in _listed(path))
        elif path.is_symlink() or path.is_file():  # not what is deleted, and no pipes
            yield name


def _ask_git(folder: Path) -> list[str]:
    names = ("ls-files", "-z", "--others", "--exclude-standard")
    if _is_in_repository(folder):
        return _git(folder, *names, "--cached")
    with tempfile.TemporaryDirectory(prefix="spot-code-") as nothing:
        _git(folder, "init", "--quiet", "--bare", nothing)
        return _git(folder, f"--git-dir={nothing}", f"--work-tree={folder.resolve()}", *names)


def _is_in_repository(folder: Path) -> bool:
    """Whether the repository around `folder` keeps it; one in an excluded folder is as if there were none."""
    git = ["git", "-C", str(folder)]
    inside = _run([*git, "rev-parse", "--is-inside-work-tree"])
    return inside.stdout.strip() == b"true" and _run([*git, "check-ignore", "--quiet", "."]).returncode == 1


def _git(folder: Path, *arguments: str) -> list[str]:
    done = _run(["git", "-C", str(folder), "-c", "core.quotePath=false", *arguments])
    if done.returncode:
        raise CodeError(f"git can't list {folder}: {done.stderr.decode(errors='replace').strip()}\n    fix: see git")
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, env=env, capture_output=True, timeout=_GIT_S, check=False)


def holds_secret(path: Path) -> bool:
    """Whether its name says so, or a token that its form alone tells is in its text."""
    if any(fnmatch(path.name, pattern) for pattern in HARMLESS):
        return False
    if any(fnmatch(path.name.lower(), pattern) for pattern in SECRET_NAMES):
        return True
    if path.is_symlink() or path.stat().st_size > _READ_FOR_SECRETS:
        return False
    content = path.read_bytes()
    if b"\0" in content[:8192]:
        return False
    text = content.decode(errors="replace")
    if _PRIVATE_KEY.search(text):
        return True
    small = text.lower()
    return any(
        len(set(found[0])) > _LEAST_LETTERS
        for words, form in _FORMS
        if any(word in small for word in words)
        for found in form.finditer(text)
    )


def _leads_inside(folder: Path, name: str) -> bool:
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle
        return False


def _add(tar: tarfile.TarFile, folder: Path, name: str) -> None:
    path = folder / name
    entry = tarfile.TarInfo(name)
    entry.uname = entry.gname = "root"
    if path.is_symlink():
        entry.type = tarfile.SYMTYPE
        there = path.parent.resolve()
        entry.linkname = os.path.relpath((there / path.readlink()).resolve(), there)
        tar.addfile(entry)
        return
    with path.open("rb") as data:
        info = os.fstat(data.fileno())
        entry.size = info.st_size
        entry.mode = 0o755 if info.st_mode & stat.S_IXUSR else 0o644
        tar.addfile(entry, data)


@dataclass
class _Digest:
    """A file, and the digest of what went into it."""

    file: IO[bytes]

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def written_size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def store_code(packed: Path, bucket: str) -> str:
    """Store what was packed where the VMs of `bucket` find it; returns its address. Raises StoreError."""
    place = "/".join(bucket.split("/")[:3]) if bucket.startswith("gs://") else bucket
    store = open_store(f"{place}/{PREFIX}")
    store.create(packed.name, packed.read_bytes(), timeout=_UPLOAD_S)
    return f"{store.url}/{packed.name}"
