"""The bundle that VMs install from."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest

from infra.stacks.packages.bundle import PACKAGES, ROOT, build, requirements
from infra.stacks.packages.lock import Lock, pruned


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes_and_the_bundle_is_named_after_them(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for name in (*PACKAGES, "systemd"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "pytorch.txt", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, copy / name)
    for path in copy.rglob("*"):  # another day, another user's umask, what editors leave
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700 if path.is_dir() else 0o600)
    (copy / "agent/__pycache__").mkdir()
    (copy / "agent/__pycache__/x.pyc").write_bytes(b"x")
    here, there = build(tmp_path / "a", root=copy), build(tmp_path / "b", root=copy)
    assert here.read_bytes() == there.read_bytes()
    assert here.name == f"{hashlib.sha256(here.read_bytes()).hexdigest()}.tar.gz"
    (copy / "agent/run/window.py").write_text("changed = True\n")
    assert build(tmp_path / "a", root=copy).name != here.name


def test_a_bundle_holds_what_the_installer_looks_for_and_no_more_rights_than_needed(tmp_path: Path) -> None:
    with tarfile.open(build(tmp_path, tracking=True)) as bundle:
        entries = {entry.name: entry for entry in bundle}
    parts = {f"requirements-{part}.txt" for part in ("agent", "workloads", "tracking")}
    assert {"install.sh", "pytorch.txt", *parts} <= set(entries)
    assert "systemd/spot-agent.service" in entries
    assert [name for name in entries if name.endswith(".whl")] == ["spot_training-0.1.0-py3-none-any.whl"]
    assert {entry.mode for entry in entries.values() if entry.isfile() and entry.name != "install.sh"} == {0o644}
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}


def test_the_requirements_are_pinned_by_hash_and_whole_and_leave_pytorch_out() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = requirements()
    for part, wanted in (
        ("agent", project["dependencies"]),
        ("workloads", project["optional-dependencies"]["workloads"]),
        ("tracking", project["optional-dependencies"]["tracking"]),
    ):
        names = {re.split(r"[<>=]", name)[0] for name in wanted} - {"torch"}
        pinned = set(re.findall(r"^([\w.-]+)==", parts[part], re.MULTILINE))
        assert names <= pinned
        assert not [name for name in pinned if name == "torch" or name.startswith("nvidia")]
        assert not pinned & {"pytest", "mypy", "ruff"}
        for block in re.split(r"\n(?=[\w.-]+==)", parts[part].strip()):
            assert "--hash=sha256:" in block, block
    assert "httpcore2==" in parts["agent"], "what our dependencies need is there too"


def test_the_locks_hold_what_each_is_for_and_nothing_that_pytorch_alone_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    training, more = (Lock((ROOT / f"requirements{name}.lock").read_text()) for name in ("", "-dev"))
    assert training.blocks.keys() & more.blocks.keys() == set()
    trained = [*project["dependencies"], *extras["workloads"], *extras["tracking"], "setuptools"]
    assert training.closure(trained) == training.blocks.keys()
    both = Lock("\n".join([*training.blocks.values(), *more.blocks.values()]) + "\n")
    wanted = [name for extra in ("workloads", "dev", "frameworks", "tracking") for name in extras[extra]]
    assert both.closure([*project["dependencies"], *wanted]) | {"setuptools"} == both.blocks.keys()
    assert [name for name in both.blocks if name.startswith(("nvidia", "cuda", "triton", "torch==", "sympy"))] == []


def test_what_pytorch_alone_needs_is_left_out_of_a_lock_and_what_others_need_too_is_not() -> None:
    text = "\n".join(
        f"{name}==1 \\\n    --hash=sha256:00\n    # via{via}"
        for name, via in (
            ("accelerate", " spot-training (pyproject.toml)"), ("nvidia-x", " torch"),
            ("filelock", "\n    #   torch\n    #   transformers"), ("mpmath", " sympy"),
            ("sympy", " torch"), ("torch", " accelerate"), ("transformers", " spot-training (pyproject.toml)"),
        )
    )  # fmt: skip
    wanted = ["accelerate", "transformers>=5", "torch>=2.9"]
    assert Lock(text + "\n").closure(wanted) == {"accelerate", "transformers", "filelock"}
    assert list(Lock(pruned(text + "\n", ["workloads"], without={"filelock"})).blocks) == ["transformers"]
