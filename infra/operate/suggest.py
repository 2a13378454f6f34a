"""What somebody meant who mistyped a command: one that begins so, or the nearest one, never one merely alike."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from typer import Context, Exit, echo
from typer.core import TyperGroup

_FIXES = {
    errno.ENOSPC: "free space there, or name a folder on another disk",
    errno.EDQUOT: "free space there, or name a folder on another disk",
    errno.EACCES: "see that this user may read or write there, or name another place",
    errno.EPERM: "see that this user may do so",
    errno.EROFS: "name a place that can be written",
    errno.ENOENT: "see that it is there, and its name is right",
    errno.EADDRINUSE: "end what uses that port, or choose another one",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENOMEM: "free memory: less at once, or a larger machine",
}
_CHANGE_THE_CLOUD = frozenset({"start", "stop", "deploy", "destroy"})


class Commands(TyperGroup):
    """A group whose unknown commands are answered with what was meant, and whose mistakes with a sentence."""

    def main(self, *args: Any, **more: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):  # one that can't say all letters says the others
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="replace")
        return super().main(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # nobody reads: the end, without a word
        except OSError as error:
            echo(sentence(error), err=True)
            raise Exit(1) from None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, object, list[str]]:  # type: ignore[override]
        name = args[0] if args else ""
        if args and self.get_command(ctx, name) is None and not name.startswith("-"):
            meant = suggested(name, self.list_commands(ctx))
            hint = f" Did you mean {' or '.join(meant)}?" if meant else f" `{ctx.command_path} --help` lists them."
            ctx.fail(f"There is no command '{name}'.{hint}")
        return super().resolve_command(ctx, args)


def sentence(error: OSError) -> str:
    """What the machine refused, and what to do."""
    why = (error.strerror or str(error)).lower()
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{why}\n    fix: {_FIXES.get(error.errno or 0, 'see that the file, folder or address is right')}"


def suggested(typed: str, commands: Sequence[str]) -> list[str]:
    """The commands that begin with it, else those the fewest slips away, and of those rather what changes nothing."""
    begun = [command for command in commands if command.startswith(typed)]
    if begun:
        return _harmless(begun)
    far = {command: slips(typed, command) for command in commands}
    least = min(far.values(), default=99)
    return _harmless(command for command in commands if far[command] == least <= (1 if len(typed) < 5 else 2))


def _harmless(commands: Iterable[str]) -> list[str]:
    found = list(commands)
    return [command for command in found if command not in _CHANGE_THE_CLOUD] or found


def slips(one: str, other: str) -> int:
    """Letters added, left out, changed, or swapped with the next, from one to the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, last, row = row, before, [at]
        for place, theirs in enumerate(other, 1):
            cost = min(row[-1] + 1, before[place] + 1, before[place - 1] + (letter != theirs))
            if at > 1 and place > 1 and letter == other[place - 2] and one[at - 2] == theirs:
                cost = min(cost, last[place - 2] + 1)
            row.append(cost)
    return row[-1]
