"""The bundle that a VM installs the agent and the trainers from: this project's wheel, locked requirements, units.

    python -m infra.stacks.packages.bundle build dist [--wheelhouse] [--agent-only]
    python -m infra.stacks.packages.bundle upload dist/SHA256.tar.gz gs://BUCKET

The same sources give the same bytes, and the bundle is named after them: `packages/<sha256>.tar.gz`. So an upload is
create-only, a VM can verify what it fetched, and a run that is deployed again finds its bundle there. With
`--wheelhouse` it holds the dependencies' wheels too, for this machine's kind of Python, and a VM needs no registry.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from infra.stacks.packages.lock import Lock

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "packages"
PACKAGES = ("agent", "infra", "workloads")
PYTORCH = "pytorch.txt"
"""Which PyTorch a VM gets whose image has none. Not in the lock: the build depends on the machine."""
_WHEEL_FILES = ("pyproject.toml", "README.md", "LICENSE")
_EPOCH = "315532800"  # 1980-01-01, the first day that a zip file, and so a wheel, can name
_UPLOAD_S = 600.0


class BundleError(Exception):
    """The bundle can't be built or uploaded; the text says why and what to do."""


def build(
    out: Path, *, root: Path = ROOT, wheelhouse: bool = False, agent_only: bool = False, tracking: bool = False
) -> Path:
    """Build the bundle into folder `out`; returns its file, `SHA256.tar.gz`. `tracking`: with W&B's client, which a run
    whose agent sends there needs, and no other."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spot-bundle-") as name:
        content = Path(name) / "bundle"
        content.mkdir()
        _build_wheel(root, content)
        for part, text in requirements(root).items():
            if {"agent": True, "workloads": not agent_only, "tracking": tracking}[part]:
                (content / f"requirements-{part}.txt").write_text(text)
        if not agent_only:
            shutil.copyfile(root / PYTORCH, content / PYTORCH)
        shutil.copytree(root / "systemd", content / "systemd")
        (content / "systemd/install.sh").rename(content / "install.sh")
        if wheelhouse:
            _fill_wheelhouse(content)
        packed = pack(content)
    bundle = out / f"{hashlib.sha256(packed).hexdigest()}.tar.gz"
    aside = bundle.with_suffix(".tmp")
    aside.write_bytes(packed)
    aside.replace(bundle)
    return bundle


def pack(folder: Path) -> bytes:
    """`folder` as tar.gz, by nothing but names, content and the right to execute."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if path.is_dir() or path.suffix == ".sh" else 0o644
            if path.is_dir():
                tar.addfile(entry)
            else:
                with path.open("rb") as data:
                    tar.addfile(entry, data)
    return gzip.compress(raw.getvalue(), mtime=0)


def requirements(root: Path = ROOT) -> dict[str, str]:
    """What `agent`, `workloads` and trackers need, cut out of the lock with its hashes. PyTorch is not in it: see
    PYTORCH."""
    lock = Lock((root / "requirements.lock").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    agent = lock.closure(project["dependencies"])
    more = {part: lock.closure(project["optional-dependencies"][part]) - agent for part in ("workloads", "tracking")}
    return {part: _lock_of(sorted(names), lock.blocks) for part, names in {"agent": agent, **more}.items()}


def upload(bundle: Path, bucket: str) -> str:
    """Store the bundle under its digest; returns its gs:// address. One that is there already is fine."""
    from agent.store import Forbidden, StoreError, open_store  # noqa: PLC0415, building needs no store

    data = bundle.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if bundle.name != f"{digest}.tar.gz":
        raise BundleError(f"{bundle} has the digest {digest}: it was changed\n    fix: build it again")
    store = open_store(f"{bucket.rstrip('/')}/{PREFIX}")
    try:
        store.create(bundle.name, data, timeout=_UPLOAD_S)
    except Forbidden as error:
        raise BundleError(f"{error}\n    fix: deploy the foundation, and log in as one of cloud.operators") from error
    except StoreError as error:
        raise BundleError(str(error)) from error
    return f"{store.url}/{bundle.name}"


def _build_wheel(root: Path, out: Path) -> None:
    """Out of a copy of just the sources: what else lies in the tree, and its dates, must not show."""
    with tempfile.TemporaryDirectory(prefix="spot-wheel-") as name:
        copy = Path(name)
        for file in _WHEEL_FILES:
            shutil.copyfile(root / file, copy / file)
        for package in PACKAGES:
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
            shutil.copytree(root / package, copy / package, ignore=ignore, copy_function=shutil.copyfile)
        for path in copy.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        program = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        built = subprocess.run(
            [sys.executable, "-c", program, str(out)],
            cwd=copy,
            env=os.environ | {"SOURCE_DATE_EPOCH": _EPOCH, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    if built.returncode:
        last = built.stderr.strip().splitlines()[-1:] or ["no output"]
        raise BundleError(f"setuptools made no wheel: {last[0]}\n    fix: make venv")


def _fill_wheelhouse(content: Path) -> None:
    house = content / "wheelhouse"
    for file in sorted(content.glob("requirements-*.txt")):
        pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command = [*pip, "--only-binary", ":all:", "--require-hashes", "--dest", str(house), "-r", str(file)]
        if subprocess.run(command, check=False, timeout=1800).returncode:
            raise BundleError(f"pip could not fetch the wheels of {file.name}; it says above why")


def _lock_of(names: list[str], blocks: dict[str, str]) -> str:
    if missing := [name for name in names if name not in blocks]:
        raise BundleError(f"requirements.lock lacks {', '.join(missing)}\n    fix: make lock")
    return "\n".join(blocks[name] for name in names) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infra.stacks.packages.bundle", description=(__doc__ or "").split("\n\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the bundle into a folder and print its path")
    building.add_argument("out", type=Path)
    building.add_argument("--wheelhouse", action="store_true", help="with the dependencies' wheels")
    building.add_argument("--agent-only", action="store_true", help="without what the trainers need")
    building.add_argument("--tracking", action="store_true", help="with the client of Weights & Biases")
    sending = commands.add_parser("upload", help="store a bundle in a bucket and print its address")
    sending.add_argument("bundle", type=Path)
    sending.add_argument("bucket", help="gs://BUCKET")
    options = parser.parse_args()
    try:
        if options.command == "build":
            how = {"wheelhouse": options.wheelhouse, "agent_only": options.agent_only, "tracking": options.tracking}
            print(build(options.out, **how))
        else:
            print(upload(options.bundle, options.bucket))
    except BundleError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
