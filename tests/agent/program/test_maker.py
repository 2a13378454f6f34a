"""The user's program is had ready: its code by its digest, its environment made once, its setup run on each VM."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import structlog

from agent.config import RunConfig
from agent.config.program import Program
from agent.program import archive
from agent.program.environment import Environment, find_uv
from agent.program.helper import run_helper
from agent.program.maker import Maker
from agent.program.trouble import PrepareError
from agent.store import Corrupt, NotFound, open_store
from agent.vm.systemd import trainer_environment
from tests.agent.program.brought import code, shipped

SAYS = "import brought, sys; print(brought.VALUE, sys.prefix)\n"
SETUP = 'test -n "$VIRTUAL_ENV"\necho "set up in $PWD"\necho more >> "$VIRTUAL_ENV/setups"\n'
NEEDS = ", requirements: needs.txt"
PROJECT = """
[project]
name = "mine"
version = "1"
requires-python = ">=3.9"
dependencies = ["brought"]
[tool.uv.sources]
brought = { path = "wheels/brought-1.0-py3-none-any.whl" }
"""


@pytest.fixture
def vms(tmp_path: Path) -> Path:
    (tmp_path / "vms").mkdir()
    return tmp_path / "vms"


def maker(run: RunConfig, vms: Path, name: str) -> Maker:
    (vms / name).mkdir(exist_ok=True)
    store = open_store(f"{run.checkpoint.bucket}/{run.run_id}")
    return Maker(run, vms / name / "run.yaml", vms / name, store)


def made(maker: Maker) -> Program:
    return asyncio.run(maker.make())


def another_archive(folder: Path) -> bytes:
    """One that can be unpacked, and is not what was kept."""
    with tarfile.open(folder / "another.tar.gz", "w:gz") as tar:
        tar.add(folder / "code/train.py", "train.py")
    return (folder / "another.tar.gz").read_bytes()


def started(program: Program, *command: str) -> subprocess.CompletedProcess[str]:
    env = trainer_environment(os.environ) | dict(program.env)
    command = command or tuple(program.command)
    return subprocess.run(command, cwd=program.folder, env=env, capture_output=True, text=True, check=False)


def test_code_is_unpacked_once_read_only_and_by_its_digest(tmp_path: Path, vms: Path) -> None:
    run = shipped(code(tmp_path, "print('hello')\n"), tmp_path)
    program = made(maker(run, vms, "one"))
    assert program.folder == vms / "one/code"
    assert started(program).stdout == "hello\n"
    assert (program.folder / "train.py").stat().st_mode & 0o777 == 0o444
    place, _, name = (run.workload.code or "").rpartition("/")
    store = open_store(place)
    store.replace(name, b"another", timeout=5.0)
    (program.folder / "of-the-program").write_text("stays")
    assert (made(maker(run, vms, "one"))).folder == program.folder  # nothing is fetched again
    assert (program.folder / "of-the-program").exists()
    with pytest.raises(Corrupt):
        made(maker(run, vms, "two"))
    store.delete(name, timeout=5.0)
    with pytest.raises(NotFound, match="deploy it again"):
        made(maker(run, vms, "two"))
    assert not (vms / "two/code").exists()


def test_an_environment_is_made_once_and_the_next_vm_finds_it_in_the_bucket(
    tmp_path: Path, vms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PART", 100_000)  # several parts
    run = shipped(code(tmp_path, SAYS, more=NEEDS, setup=SETUP), tmp_path)
    first = maker(run, vms, "one")
    with structlog.testing.capture_logs() as said:
        program = made(first)
        made(first)
    assert started(program).stdout == f"7 {vms}/one/environment\n"
    assert [line["source"] for line in said if line["event"] == "environment_ready"] == ["made"]
    heard = [line["message"] for line in said if line["event"] == "prepare_output"]
    assert heard.count(f"set up in {vms}/one/code") == 1

    asyncio.run(first.keep(lambda: True))  # a window goes first
    assert not first.store.list("environments/", timeout=5.0)
    asyncio.run(first.keep(lambda: False))
    asyncio.run(first.keep(lambda: False))
    second = maker(run, vms, "two")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with structlog.testing.capture_logs() as said:
        again = made(second)
    assert [line["source"] for line in said if line["event"] == "environment_ready"] == ["bucket"]
    (vms / "one").rename(vms / "gone")
    assert started(again).stdout == f"7 {vms}/two/environment\n"
    assert (vms / "two/environment/setups").read_text() == "more\nmore\n"  # on each VM

    (part,) = [each.name for each in first.store.list("environments/", timeout=5.0) if each.name.endswith("/00000")]
    first.store.replace(part, another_archive(tmp_path), timeout=5.0)
    third = maker(run, vms, "three")
    assert started(made(third)).returncode == 0  # made anew


def test_a_projects_lock_is_installed_as_it_is(tmp_path: Path, vms: Path) -> None:
    run_file = code(tmp_path, SAYS, more=", requirements: uv.lock")
    own = run_file.parent
    (own / "pyproject.toml").write_text(PROJECT)
    lock = [find_uv(), "lock", "--quiet", "--offline", "--project", str(own), "--python", sys.executable]
    subprocess.run(lock, check=True)
    run = shipped(run_file, tmp_path)
    assert started(made(maker(run, vms, "one"))).stdout == f"7 {vms}/one/environment\n"
    key = Environment.of(run.workload, vms / "one/code", vms).key
    (vms / "one/code/pyproject.toml").chmod(0o644)
    (vms / "one/code/pyproject.toml").write_text(PROJECT.replace("3.9", "3.99"))
    assert Environment.of(run.workload, vms / "one/code", vms).key != key
    (vms / "one/environment.key").unlink()
    with pytest.raises(PrepareError, match=r"(?s)installing uv\.lock failed.*incompatible with the project's Python"):
        made(maker(run, vms, "one"))


def test_the_programs_environment_is_apart_from_the_agents_and_has_the_session(tmp_path: Path, vms: Path) -> None:
    program = made(maker(shipped(code(tmp_path, "", more=NEEDS), tmp_path), vms, "one"))
    assert started(program, "python", "-c", "import spot_training.protocol.messages").returncode == 0
    for ours in ("agent", "infra", "pydantic", "structlog"):
        assert started(program, "python", "-c", f"import {ours}").returncode == 1
    assert started(program, "bash", "-c", "command -v python").stdout.strip() == f"{vms}/one/environment/bin/python"
    assert str(Path(sys.executable).parent) not in started(program, "bash", "-c", "command -v python").stdout


def test_a_setup_that_fails_is_said_with_its_last_lines(tmp_path: Path, vms: Path) -> None:
    run = shipped(code(tmp_path, "", setup="echo the last words\nexit 9\n"), tmp_path)
    with pytest.raises(PrepareError) as error:
        made(maker(run, vms, "one"))
    assert str(error.value) == (
        "workload.setup (setup.sh) failed with exit status 9. Its last lines:\n  the last words"
    )


def test_what_has_no_end_is_ended_in_time_with_all_that_it_started(tmp_path: Path) -> None:
    endless = ["sh", "-c", "sleep 60 & echo $! > child; sleep 60"]
    with pytest.raises(PrepareError, match=r"a setup had no end after 0 s: supervision\.prepare_timeout"):
        asyncio.run(run_helper("a setup", endless, folder=tmp_path, env=os.environ, timeout=0.3))
    exe, deadline = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/exe"), time.monotonic() + 5.0
    while exe.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_setup_leaves_in_a_session_of_its_own_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    asyncio.run(run_helper("it", ["sh", "-c", "setsid sleep 8 &"], folder=tmp_path, env=os.environ, timeout=20.0))
    assert time.monotonic() - begun < 6.0
