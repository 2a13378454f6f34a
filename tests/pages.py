"""`python -m tests.pages`: renews the pages of docs/ that are written from the code: the tree, the scenarios, the run
file's keys, the journal's events.

In the tree each file's line is the first sentence of its docstring, or of the comment that it begins with.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable
from itertools import groupby
from pathlib import Path, PurePosixPath

from agent.config import describe_fields
from agent.config.events import EVENTS, ONE_LINERS
from tests.vm import scenarios

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("agent", "infra", "systemd", "workloads")
_NAME, _TEXT = 25, 112
_REST = """\
Makefile               `make help`
cdktf.json             What `cdktf` and `cdktn` start
pytorch.txt            The PyTorch that is installed where none is chosen: into .venv, and on a VM whose image has none
requirements*.lock     Every dependency but PyTorch, with hashes: of training, of tests, of the stacks, of checkov
"""
_TREE = """\
# The tree

One folder is one idea, and imports run downwards only: `tests/test_layering.py` holds that. Written from the files by
`make pages`.

| folder | what |
|---|---|
| `agent/` | the agent on a VM: main -> run -> trainer, checkpoint -> vm, telemetry -> notices, store, config |
| `workloads/` | `spot_training`, the library that a training program holds; our trainers; examples of other people's |
| `infra/` | the stacks, `spot`, the proofs, the local cloud, the benchmark |
| `systemd/` | units, drop-ins, installer |
| `tests/` | promises; `promises` takes VMs away as processes, `vm` as containers and in QEMU |
"""
_SCENARIOS = """\
# Scenarios

Each is a readable test of that name. It ends with no committed step lost, no object half written, an exit inside the
window, and records that agree with an observer's clock. Written from the tests by `make pages`.

- On the emulated machine (real kernel, udev, logind and systemd, put there by our installer, at 27 to 42 times less
  speed) the power button to a committed state took 2 to 3 s, to power off 6 to 11 s; the limit is 30 s.
- A week of 14 preemptions, 3 power cuts, 5 crashes, a stock-out, a lost zone and a bucket that is away, driven by a
  managed instance group, ends bit for bit like the undisturbed run: in 140 s on processes, and in 160 s, with 19 boots,
  on containers (of which CI replays two days; `SPOT_VM_DAYS=7` the week).
- Beside them `make scenarios` plays 150 more, drawn so that every way into a run meets every mishap, `make strikes`
  strikes runs at random, and `make kinds`, `make rehearsals` cut scripts of every kind.

"""
_RUN_FILE = """\
# The run file, key by key

`spot fields` prints the same, `spot schema` its JSON schema for an editor, `spot check RUN.yaml` names every mistake
with its line and its fix. Unknown keys are refused. Written from the code by `make pages`.

"""
_EVENTS = """\
# What the agent says in the journal

Each event is a record with fields: `journalctl -u spot-agent EVENT=committed -o json`. In the journal their names are
upper-case. `spot events` prints the same. Written from the code by `make pages`.

"""


def tree() -> str:
    """Every file of FOLDERS that says what it is, by folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = sorted((PurePosixPath(line) for line in listed.stdout.splitlines()), key=lambda path: path.parts)
    there = sorted((path for path in paths if (ROOT / path).exists()), key=lambda path: (path.parent, path.name))
    lines: list[str] = []
    for folder, files in groupby(there, key=lambda path: path.parent):
        told = [f"  {path.name:<{_NAME - 2}}{text}" for path in files if (text := describe(ROOT / path))]
        lines += [f"{folder}/", *told] if told else []
    return "\n".join(lines) + "\n" + _REST


def describe(path: Path) -> str:
    """The first sentence of what a file says about itself; empty where it says nothing."""
    text = path.read_text()
    said = (ast.get_docstring(ast.parse(text)) or "") if path.suffix == ".py" else _first_comment(text)
    sentence = re.split(r"(?<=[\w`)'\"])\.(?=\s|$)", " ".join(said.split("\n\n")[0].split()), maxsplit=1)[0]
    topic, colon, rest = sentence.partition(": ")
    if colon and topic.lower() == path.stem.replace("_", " ").lower():
        sentence = rest[0].upper() + rest[1:]
    if len(sentence) > _TEXT:
        sentence = sentence[: _TEXT - 4].rsplit(" ", 1)[0] + " ..."
    return sentence


def _first_comment(text: str) -> str:
    """The comment at the top, below a `#!` line."""
    lines = [line for line in text.splitlines() if not line.startswith("#!")]
    comment = []
    for line in lines:
        found = re.match(r"(?:#|//) ?(.*)", line)
        if not found or not found[1]:
            break
        comment.append(found[1])
    return " ".join(comment)


def run_file() -> str:
    """Every key of a run file, a row each."""
    lines = ["| key | meaning | unit | default |", "|---|---|---|---|"]
    for field in describe_fields():
        unit = "" if field.unit == "none" else field.unit
        cells = (field.meaning, unit, field.default)
        lines.append(f"| `{field.path}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def events() -> str:
    """Every event of the journal with its fields, and the questions that commands answer."""
    lines = ["| event | meaning | fields |", "|---|---|---|"]
    lines += [f"| `{name}` | {doc.meaning} | {' '.join(doc.fields)} |" for name, doc in EVENTS.items()]
    lines += ["", "## Questions, and the command that answers", "", "| question | on the VM |", "|---|---|"]
    lines += [f"| {question} | `{line}` |" for question, line in ONE_LINERS.items()]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "tree.md": lambda: f"{_TREE}\n```\n{tree()}```\n",
    "scenarios.md": lambda: _SCENARIOS + scenarios.table(),
    "run-file.md": lambda: _RUN_FILE + run_file(),
    "events.md": lambda: _EVENTS + events(),
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
