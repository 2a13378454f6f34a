"""Environment: the program's own Python, made once for what it asks for, and kept in the bucket for the next VM.

It has what `workload.requirements` lists and `spot_training`, and nothing of the agent's own. Its key is a digest of
all that it depends on: the requirements, the setup, this Python and this kind of machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from agent.config.sections import Workload
from agent.program.archive import fetch_environment
from agent.program.code import digest_of
from agent.program.helper import run_helper
from agent.program.trouble import PrepareError
from agent.store import Store
from agent.vm.systemd import trainer_environment

log = structlog.get_logger()

_INCLUDED = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[\s=]+(\S+)", re.MULTILINE)
_OF_THE_CODE = re.compile(
    r"^\s*(?:-e\b|--editable|--find-links|-f\b|\.|/)|file:|\.whl\b|\.tar\.gz\b|^source = \{ (?:edit|dir|path)",
    re.MULTILINE,
)
_LOCK = "uv.lock"


@dataclass(frozen=True)
class Environment:
    """`folder`: where it is, or will be. `key` says what is in it, as the file beside it does once it is whole."""

    folder: Path
    key: str

    @classmethod
    def of(cls, workload: Workload, code: Path, place: Path) -> Environment:
        """What `workload` asks for, below `place`. Raises PrepareError where the code lacks a file of it."""
        digest = digest_of(workload.code or "") if workload.packed else str(code)
        machine = [platform.machine(), *platform.libc_ver(), sys.version, _base_python()]
        parts = [*machine, str(_sees_the_images()), workload.setup or ""]
        if workload.requirements is not None:
            file = code / workload.requirements
            text = _with_included(file, seen=set())
            if file.name == _LOCK:
                text += _read(file.with_name("pyproject.toml"))
            parts += [workload.requirements, text, digest if _OF_THE_CODE.search(text) else ""]
        if workload.setup is not None:
            parts.append(_read(code / workload.setup))
        return cls(place / "environment", hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    @property
    def marker(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.key")

    @property
    def is_whole(self) -> bool:
        return self.folder.is_dir() and self.marker.exists() and self.marker.read_text() == self.key

    def whole(self) -> None:
        self.marker.write_text(self.key)

    @property
    def variables(self) -> dict[str, str]:
        """For what runs in it: all of the agent's but what is for the agent alone."""
        path = os.environ.get("PATH", os.defpath)
        return trainer_environment(os.environ) | {
            "PATH": f"{self.folder / 'bin'}:{path}",
            "VIRTUAL_ENV": str(self.folder),
            "UV_NO_PROGRESS": "1",
        }


async def make_environment(
    environment: Environment, workload: Workload, code: Path, store: Store, *, until: float
) -> None:
    """Have it on this disk: it is there, or fetched, or made. Raises PrepareError."""
    if environment.is_whole:
        return
    begun = time.monotonic()
    environment.marker.unlink(missing_ok=True)
    shutil.rmtree(environment.folder, ignore_errors=True)
    uv = find_uv()
    source = "bucket"
    if not await fetch_environment(store, environment.key, environment.folder, until=until):
        source = "made"
        site = ["--system-site-packages"] if _sees_the_images() else []
        command = [uv, "venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable, *site]
        await _run("uv venv", [*command, str(environment.folder)], environment, code, until=until)
        if workload.requirements is not None:
            command = _install(uv, workload.requirements, environment)
            await _run(f"installing {workload.requirements}", command, environment, code, until=until)
    _link_in(environment.folder, uv)
    if workload.setup is not None:  # on each VM: not all that it does is in the environment
        command = ["bash", workload.setup]
        await _run(f"workload.setup ({workload.setup})", command, environment, code, until=until)
    environment.whole()
    took = round(time.monotonic() - begun, 3)
    log.info("environment_ready", folder=str(environment.folder), key=environment.key, source=source, seconds=took)


def find_uv() -> str:
    """The agent's own, else any. Raises PrepareError."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise PrepareError("uv, which makes the program's environment, is not installed: pip install uv")
    return found


def _install(uv: str, requirements: str, environment: Environment) -> list[str]:
    """A project's lock says all of it, the project itself included: nothing is resolved anew, no file is written."""
    file = PurePosixPath(requirements)
    if file.name != _LOCK:
        return [uv, "pip", "install", "--python", str(environment.folder), "-r", requirements]
    how = ["--frozen", "--no-editable", "--no-default-groups", "--inexact", "--no-python-downloads"]
    return [
        uv,
        "sync",
        *how,
        "--active",
        "--python",
        str(environment.folder / "bin/python"),
        "--project",
        str(file.parent),
    ]


async def _run(what: str, command: list[str], environment: Environment, code: Path, *, until: float) -> None:
    left = max(1.0, until - time.monotonic())
    env = environment.variables | {"SPOT_CODE": str(code)}
    await run_helper(what, command, folder=code, env=env, timeout=left)


def _link_in(folder: Path, uv: str) -> None:
    """`spot_training` alone of all that is ours; `spot`, and `pip` where there is none, for shell scripts."""
    spec = importlib.util.find_spec("spot_training")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    library = folder / "spot"
    library.mkdir(exist_ok=True)
    _link(library / "spot_training", Path(next(iter(spec.submodule_search_locations))))
    (site,) = folder.glob("lib/python3*/site-packages")
    # Relative to the file's own folder: the environment may be put elsewhere.
    (site / "spot_training.pth").write_text(f"{os.path.relpath(library, site)}\n")
    spot = Path(sys.executable).parent / "spot"
    if spot.exists():
        _link(folder / "bin/spot", spot)
    pip = folder / "bin/pip"
    if not pip.exists():
        pip.write_text('#!/bin/sh\nexec uv pip "$@"\n')
        pip.chmod(0o755)
    _link(folder / "bin/uv", Path(uv))


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _base_python() -> str:
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _sees_the_images() -> bool:
    """Whether the agent was installed so that programs see the image's packages, PyTorch above all."""
    settings = Path(sys.prefix) / "pyvenv.cfg"
    return settings.exists() and "include-system-site-packages = true" in settings.read_text()


def _with_included(file: Path, *, seen: set[Path]) -> str:
    """The file's text and that of all files it includes."""
    text = _read(file)
    seen.add(file)
    others = [file.parent / name for name in _INCLUDED.findall(text)]
    return "\0".join([text, *(_with_included(other, seen=seen) for other in others if other not in seen)])


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        raise PrepareError(f"{file} can't be read: {error.strerror}") from error
