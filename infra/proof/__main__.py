"""`python -m infra.proof RUN.yaml...|cdktf.out`: exit status 1 for a mistake, 2 where nothing could be checked.

`python -m infra.proof iam RUN.yaml...` prints who may do what.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.proof.app import NotSynthesized, Proof, prove, read, synthesize
from infra.proof.bindings import NoBindings
from infra.proof.print_iam import print_iam


def main() -> None:
    if sys.argv[1:2] == ["iam"]:
        print_iam(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m infra.proof", description="Check the stacks without the cloud.")
    parser.add_argument("what", nargs="+", type=Path, metavar="RUN.yaml|FOLDER", help="run files, or cdktf.out")
    console = Console(soft_wrap=True)
    status = 0
    for what in parser.parse_args().what:
        began = time.monotonic()
        try:
            app = read(what) if what.is_dir() else synthesize(what)
            synthesized = time.monotonic()
            proof = prove(app)
        except (NotSynthesized, NoBindings) as error:
            console.print(Text(f"{what}: {error}", style="bold red"))
            sys.exit(2)
        verb = "read" if what.is_dir() else "synthesized"
        times = f"{verb} in {synthesized - began:.1f} s, checked in {time.monotonic() - synthesized:.1f} s"
        _print(console, what, proof, times)
        status |= bool(proof.mistakes)
    sys.exit(status)


def _print(console: Console, what: Path, proof: Proof, times: str) -> None:
    table = Table(box=None, title=f"{what}: {times}, provider {proof.provider}", title_justify="left")
    table.add_column("stack")
    table.add_column("blocks", justify="right")
    table.add_column("mistakes", justify="right")
    for stack, blocks in proof.blocks.items():
        count = sum(mistake.stack == stack for mistake in proof.mistakes)
        table.add_row(stack, str(blocks), Text(str(count), style="bold red" if count else "green"))
    console.print(table)
    for mistake in proof.mistakes:
        for line in str(mistake).splitlines():
            console.print(Text(line, style="green" if line.startswith(" ") else "bold red"))


if __name__ == "__main__":
    main()
