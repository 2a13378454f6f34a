"""Code as a user brings it: a program, a wheel of its own that it requires, a setup; packed, in a bucket."""

from __future__ import annotations

import zipfile
from pathlib import Path

from agent.config import RunConfig, load_run
from agent.config.program import with_code
from infra.packing import code_of, pack_code, store_code

RUN = """
run_id: mine
workload: {{kind: {kind}, command: [python, train.py]{more}}}
checkpoint: {{bucket: "file://{folder}/bucket"}}
"""


def wheel(folder: Path, *, value: int = 7) -> None:
    """`brought`, a package that nobody else has."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "brought-1.0.dist-info"
    with zipfile.ZipFile(folder / "brought-1.0-py3-none-any.whl", "w") as file:
        file.writestr("brought.py", f"VALUE = {value}\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


def code(folder: Path, train: str, *, kind: str = "script", more: str = "", setup: str = "") -> Path:
    """A folder of code; returns its run file."""
    own = folder / "code"
    wheel(own / "wheels")
    (own / "train.py").write_text(train)
    (own / "needs.txt").write_text("--no-index\n--find-links wheels\nbrought\n")
    if setup:
        (own / "setup.sh").write_text(setup)
        more += ", setup: setup.sh"
    (own / "run.yaml").write_text(RUN.format(kind=kind, folder=folder, more=more))
    return own / "run.yaml"


def shipped(run_file: Path, bucket: Path) -> RunConfig:
    """The run as a VM reads it: its code is in the bucket."""
    run = load_run(run_file)
    found = code_of(run)
    assert found is not None
    return with_code(run, store_code(pack_code(found, bucket / "packed"), run.checkpoint.bucket))
