"""`python -m tests.programs.table`: renews docs/what-programs.md, one row for each program in `scripts`.

Each begins with comments: the way in which it saves and ends; `Group:`; `Promise:`, what is promised to it, for people;
`Expect:`, the same for the test, what is in the folder on the next VM (see `Row.expects`); and, where need be, `How:`,
the run file's keys and what happens to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
TABLE = ROOT / "docs" / "what-programs.md"
GROUPS = ("How it saves", "Whose save it is", "What else is in the folder", "Who hears the notice", "How it ends")
_INTRODUCTION = """\
# What is promised to any program

`kind: command` runs a program that knows nothing of us, and keeps the folder it saves to. Each row is a program, and a
test: it runs under the agent's own parts, is told of a preemption (or ends as the row says), and what comes back on the
next VM is compared. `make programs` runs all of them; this page is written by `python -m tests.programs.table`.

**When a save is whole** is known in this order: the program says so (`spot saved [PATH]` in any language,
`spot_training.saved(PATH)` in Python); the run file's `complete_when: "*/done"`; the file that a framework writes last
(Hugging Face, Lightning, Accelerate, DeepSpeed, torch DCP, Megatron-LM); a format that says where it ends
(`torch.save`, safetensors). Nothing that somebody has open for writing is whole. Only of the rest it counts that it
stands still for a second, **and that promises less**: files that belong together and are written with a longer pause
between them may be taken apart. One line, `spot saved`, makes that exact.

Logs, event files and trackers' folders (`*.log`, `*.jsonl`, `*.csv`, `*.out`, `*.err`, `events.out.tfevents*`,
`wandb/`, `runs/`, `mlruns/`, `logs/`) hold no save up: they are carried along as they are.

**Who is told**: the processes that catch `notice_signal`, under whatever shell or launcher; where nobody does, those
that catch SIGTERM. Where nobody hears either, the event `notice_unheard` says so a minute after the start.

**What is kept** of a file are its bytes, name, owner, mode and time, and that it is a link or has several names. *Not*:
extended attributes and ACLs, setuid bits, pipes, sockets and devices.
"""


@dataclass(frozen=True)
class Row:
    """`expects`: `PATH=TEXT` is a file that begins so, `PATH` one that is there, `!PATH` one that is not; `nothing`: no
    save; `old:PATH`, `mode:PATH=M`: its time and mode; `step=N`: the record's; `lost<S`: seconds; `used<S`, `used>S`:
    how long the window was; `event:NAME`; `ending:CAUSE`; `said:WORD`, why the run stops."""

    script: Path
    way: str
    group: str
    promise: str
    expects: list[str]
    how: dict[str, str]

    @property
    def name(self) -> str:
        return self.script.stem


def rows() -> list[Row]:
    """All rows, by group."""
    found = [_row(script) for script in sorted(SCRIPTS.iterdir()) if script.suffix in (".py", ".sh", ".pl", ".c")]
    return sorted(found, key=lambda row: (GROUPS.index(row.group), row.name))


def _row(script: Path) -> Row:
    said: dict[str, str] = {}
    key = "Way"
    for line in script.read_text().splitlines():
        if line.startswith("#!") or line == "/*":
            continue
        found = re.match(r"(?:#|//) ?(.*)", line)
        if not found:
            break
        if named := re.match(r"(Way|Group|Promise|Expect|How): (.*)", found[1]):
            key, text = named[1], named[2]
        else:
            text = found[1]
        said[key] = f"{said.get(key, '')} {text}".strip()
    how = dict(pair.split("=", 1) for pair in said.get("How", "").split())
    return Row(script, said["Way"], said["Group"], said["Promise"], said["Expect"].split(" "), how)


def table() -> str:
    parts = [_INTRODUCTION]
    for group, members in groupby(rows(), key=lambda row: row.group):
        parts.append(f"\n## {group}\n\n| a program that | what is promised | held by |\n|---|---|---|\n")
        for row in members:
            link = f"[{row.script.name}](../tests/programs/scripts/{row.script.name})"
            parts.append(f"| {row.way} | {row.promise} | {link} |\n")
    return "".join(parts)


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table())
