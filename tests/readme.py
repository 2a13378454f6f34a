"""`python -m tests.readme`: renews what the README says of the tree and of the scenarios, from the files themselves.

Each file's line is the first sentence of its docstring, or of the comment that it begins with.
"""

from __future__ import annotations

import ast
import re
import subprocess
from itertools import groupby
from pathlib import Path, PurePosixPath

from tests.vm import scenarios

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOLDERS = ("agent", "infra", "systemd", "workloads")
_NAME, _TEXT = 25, 112
_REST = """\
Makefile               `make help`
cdktf.json             What `cdktf` and `cdktn` start
pytorch.txt            The PyTorch that is installed where none is chosen: into .venv, and on a VM whose image has none
requirements*.lock     Every dependency but PyTorch, with hashes: of training, of the stacks, of checkov
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


def renewed(text: str) -> str:
    """The README as it should be: what is between `<!-- NAME -->` and `<!-- end -->` is ours."""
    for name, part in (("scenarios", scenarios.table()), ("tree", f"```\n{tree()}```\n")):
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, after = text.partition(begin)
        text = f"{before}{begin}\n{part}\n{after[after.index(end) :]}"
    return re.sub(r"\d+ named end-to-end", f"{len(list(scenarios.scenarios()))} named end-to-end", text)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
