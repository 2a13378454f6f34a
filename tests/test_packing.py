"""The user's code: what travels, that the same files give the same bytes, and what is refused by name."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from agent.config import RunFileError, load_run
from infra import packing
from infra.operate.unread import unread
from infra.packing import CodeError, code_of, listed, pack_code

RUN = """
run_id: mine
workload: {kind: command, command: [python, train.py], checkpoint_dir: saves%s}
checkpoint: {bucket: gs://runs}
"""
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"  # of the form, and nobody's


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "parts").mkdir(parents=True)
    (folder / "run.yaml").write_text(RUN % "")
    (folder / "train.py").write_text("import parts\n")
    (folder / "parts/__init__.py").write_text("")
    (folder / "train.sh").write_text("#!/bin/sh\n")
    (folder / "train.sh").chmod(0o700)
    (folder / ".gitignore").write_text("*.pt\n/data/\n")
    for left in ("model.pt", "data/1.txt", "saves/checkpoint-1/x", "out/mine/vms/x", "parts/__pycache__/a.pyc"):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_text("stays behind")
    (folder / "env/lib").mkdir(parents=True)
    (folder / "env/pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "env/lib/x.py").write_text("")
    return folder


TRAVELS = [".gitignore", "parts/__init__.py", "run.yaml", "train.py", "train.sh"]


def test_what_git_would_keep_travels_in_a_repository_or_not(code: Path) -> None:
    found = code_of(load_run(code / "run.yaml"))
    assert found is not None
    assert list(found.files) == TRAVELS
    git = ["git", "-C", str(code), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "-f", "train.py", "model.pt"], check=True)
    (code / "new.py").write_text("")  # not added yet
    inner = code / "inner"  # a repository in it
    subprocess.run(["git", "init", "--quiet", str(inner)], check=True)
    (inner / "a.py").write_text("")
    again = code_of(load_run(code / "run.yaml"))
    assert again is not None
    assert sorted({*again.files} - {*TRAVELS}) == ["inner/a.py", "model.pt", "new.py"]  # what is in the index is meant


def test_the_same_files_give_the_same_bytes_and_modes_are_kept(code: Path, tmp_path: Path) -> None:
    (code / "same.py").symlink_to(code / "train.py")
    run = load_run(code / "run.yaml")
    found = code_of(run)
    assert found is not None
    first = pack_code(found, tmp_path / "one")
    for name in found.files:
        os.utime(code / name, (1e9, 1e9), follow_symlinks=False)
    (code / "train.py").chmod(0o600)
    assert pack_code(found, tmp_path / "two").name == first.name
    with tarfile.open(first) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["train.sh"].mode == 0o755
    assert entries["train.py"].mode == 0o644
    assert entries["same.py"].linkname == "train.py"
    (code / "train.py").write_text("import parts  # changed\n")
    assert pack_code(found, tmp_path / "two").name != first.name


def test_what_may_not_travel_is_refused_by_name(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST_FILE", 1000)
    for name, content in (
        ("parts/.env", "A=b"),
        ("id_rsa", "x"),
        ("notes.md", f"my token is {TOKEN}\n"),
        ("key.json", '{"private_key": "-----BEGIN PRIVATE KEY-----\\n' + "MIIE" * 20 + '"}'),
        ("big.bin", "x" * 2000),
        (".env.example", "A="),
        ("placeholder.md", "export HF_TOKEN=hf_" + "x" * 34),
    ):
        (code / name).write_text(content)
    (code / "hosts").symlink_to("/etc/hosts")
    found = code_of(load_run(code / "run.yaml"))
    assert found is not None
    told = [str(refusal.reason) for refusal in packing.refused(found)]
    assert told[0].startswith("hosts: a link that leads out")
    assert told[1].startswith("id_rsa, key.json, notes.md, parts/.env: a secret")
    assert told[2].startswith("big.bin: more than 1.0 kB")
    with pytest.raises(CodeError, match=r"hosts.*\n    fix: "):
        pack_code(found, code.parent / "packed")
    (code / "run.yaml").write_text(RUN % ", no_secret: [notes.md, ./key.json]")
    said = code_of(load_run(code / "run.yaml"))
    assert said is not None
    assert [refusal.reason for refusal in packing.refused(said)][1].startswith("id_rsa, parts/.env: a secret")
    monkeypatch.setattr(packing, "LARGEST_FILE", 10**6)
    monkeypatch.setattr(packing, "LARGEST", 1000)
    assert "the largest: big.bin" in list(packing.refused(found))[-1].reason


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", requirements: needs.txt", "workload.requirements: there is no needs.txt in"),
        (", setup: data/1.txt", "workload.setup: data/1.txt stays behind: it is excluded"),
        (", code: /no/such/folder", "workload.code: /no/such/folder is no folder"),
        (", requirements: env/poetry.lock", "does not read env/poetry.lock\n    fix: poetry export"),
        (", requirements: uv.lock", "workload.requirements: there is no pyproject.toml in"),
        (", no_secret: [no.md]", "workload.no_secret: there is no no.md in"),
        (", no_secret: [train.py]", "workload.no_secret: train.py is not taken for a secret"),
        (", requirements: ../needs.txt", "workload.requirements: '../needs.txt' is no file of the code"),
        (', code: "gs://bucket/code.zip"', "workload.code: 'gs://bucket/code.zip' is no packed code"),
    ],
)
def test_code_that_could_not_start_is_refused_before_it_costs_a_vm(code: Path, more: str, said: str) -> None:
    (code / "run.yaml").write_text(RUN % more)
    with pytest.raises(RunFileError) as error:
        load_run(code / "run.yaml", also=unread)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("[python, trayn.py]", "there is no trayn.py in"),
        ("[torchrun, --nproc-per-node, '1', model.pt.py]", "there is no model.pt.py in"),
        ("[./train.sh]", ""),
        ("[bash, train.sh, data/x.sh]", ""),
        ("[./train.py]", "train.py may not be executed"),
        ("[./data/1.txt]", "data/1.txt stays behind"),
        ("[trayn, --fast]", "there is no program trayn here"),
    ],
)
def test_a_program_that_is_not_there_is_named(code: Path, command: str, said: str) -> None:
    (code / "run.yaml").write_text((RUN % "").replace("[python, train.py]", command))
    told = [refusal.reason for refusal in unread(load_run(code / "run.yaml"))]
    assert (said in told[0]) if said else told == [] or "torchrun" in told[0]


def test_a_folder_that_an_outer_repository_excludes_is_asked_by_itself(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/out/\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train.py").write_text("")
    assert listed(tmp_path / "out") == ["train.py"]
