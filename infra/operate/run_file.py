"""What the commands of `spot` share: the run file they read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from agent.config import RunConfig, RunFileError
from infra.operate.unread import unread
from infra.stacks.machines import load_run

BAD_RUN_FILE = 2
"""Exit code, the same as for a mistake on the command line."""

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]


def load(run_file: Path, *, to_train: bool = False) -> RunConfig:
    """The run file, or its mistakes on stderr and exit code 2. `to_train`: what nothing would do is one, too."""
    try:
        return read(run_file, to_train=to_train)
    except RunFileError as error:
        tell(error)
        raise typer.Exit(BAD_RUN_FILE) from None


def read(run_file: Path, *, to_train: bool = False) -> RunConfig:
    """As `load`. Raises RunFileError."""
    return load_run(run_file, also=unread if to_train else None)


def tell(error: RunFileError) -> None:
    """The mistakes, on stderr."""
    console = Console(stderr=True, soft_wrap=True)
    for line in str(error).splitlines():
        console.print(Text(line, style="green" if line.startswith(" ") else "bold red"))
