"""`python -m tests.vm.scenarios`: the named end-to-end scenarios as a Markdown table, from the tests' own names.

Every test that is one counts: VMs as containers, a VM with ACPI, and the agent's processes under attack.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
LEVELS = {
    "container": "vm/containers/test_*.py",
    "QEMU": "vm/acpi/test_*.py",
    "processes": "promises/test_resilience.py",
}


def scenarios() -> Iterator[tuple[str, str, str]]:
    """(level, file relative to tests/, what is promised)."""
    for level, pattern in LEVELS.items():
        for path in sorted(TESTS.glob(pattern)):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield level, str(path.relative_to(TESTS)), node.name.removeprefix("test_").replace("_", " ")


def table() -> str:
    lines = ["| # | on | it is promised that |", "|---|---|---|"]
    lines += [f"| {number} | {level} | {text} |" for number, (level, _, text) in enumerate(scenarios(), 1)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
