"""`python -m tests.kinds.table`: renews docs/what-resumes.md, one row for each script, from what its docstring says.

The first paragraph is the row's title; the second its group and what is to happen, after a colon: `exact`, or words
that are shown to whoever runs it. LINE stands for a line's number.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
TABLE = ROOT / "docs" / "what-resumes.md"
GROUPS = (
    "Loops", "Variables of the loop", "Data", "Random numbers", "Optimizers", "Schedulers", "Averages and scalers",
    "Models", "Kinds of tensors", "Frameworks", "Ends and metrics",
)  # fmt: skip
NEEDS = {"huggingface": "accelerate", "lightning": "lightning", "accelerate": "accelerate"}
"""What a framework's adapter needs."""
_INTRODUCTION = """\
# What resumes

Each row is a script, and a test: it trains undisturbed, and again cut in mid-forward, before the update and behind it,
twice in a row each. *exact*: every metric and every bit of the last state are the same. Otherwise the words that are
shown at the first step at the latest. `pytest tests/kinds` runs all of them; this page is written from them by
`python -m tests.kinds.table`.
"""


@dataclass(frozen=True)
class Row:
    script: Path
    title: str
    group: str
    told: str  # empty: exact

    @property
    def name(self) -> str:
        return self.script.stem

    @property
    def missing(self) -> list[str]:
        """What it imports, and is not installed here."""
        tree = ast.parse(self.script.read_text())
        names = [at.name for one in ast.walk(tree) if isinstance(one, ast.Import) for at in one.names]
        froms = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        names += [one.module for one in froms if one.module]
        names += [
            NEEDS[at.name] for one in froms for at in one.names if one.module == "spot_training" and at.name in NEEDS
        ]
        return sorted({top for name in names if not importlib.util.find_spec(top := name.split(".")[0])})


def rows() -> list[Row]:
    """All rows, by group."""
    found = [_row(script) for script in sorted(SCRIPTS.glob("*.py"))]
    return sorted(found, key=lambda row: (GROUPS.index(row.group), bool(row.told), row.name))


def _row(script: Path) -> Row:
    title, said = (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n\n", 1)
    group, outcome = " ".join(said.split()).split(": ", 1)
    return Row(script, " ".join(title.split()), group, "" if outcome == "exact" else outcome)


def table() -> str:
    parts = [_INTRODUCTION]
    for group, members in groupby(rows(), key=lambda row: row.group):
        parts.append(f"\n## {group}\n\n| script | what happens |\n|---|---|\n")
        for row in members:
            words = row.told.replace("|", "\\|")
            happens = f"told: “{words}”" if row.told else "exact"
            parts.append(f"| [{row.title}](../tests/kinds/scripts/{row.script.name}) | {happens} |\n")
    return "".join(parts)


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table())
