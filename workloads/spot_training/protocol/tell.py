"""Tell: a program of kind `command` says that it has saved. `spot saved [PATH] [--step N]`, or `saved(PATH)`.

One message on the agent's socket, by the standard library's smallest parts: it is called after each save, by a shell
script even, and is not to cost what importing all else would.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from pathlib import Path

_HEADER = struct.Struct("!I")
_TIMEOUT_S = 120.0
_USAGE = """\
usage: spot saved [PATH] [--step N]

Say that PATH, in the run's checkpoint folder, is whole (default: the folder)."""


class NotNoted(Exception):
    """The agent did not take it; the text says why."""


def saved(path: str | os.PathLike[str] = ".", *, step: int | None = None) -> bool:
    """Say that `path` is whole: in the run's checkpoint folder, or where this program is; "." is the folder itself.
    Where a save is due it is held before this returns: the program may write to it again. `step`: its own, where the
    name of `path` does not tell. False, and nothing else, where no agent supervises this program.

    Raises:
        NotNoted: the agent has no use for it, and says why.
    """
    where = os.environ.get("SPOT_AGENT_SOCKET")
    if not where:
        return False
    frame = json.dumps({"type": "Saved", "path": os.fspath(path), "step": step, "cwd": str(Path.cwd())}).encode()
    try:
        with _connected(where) as connection:
            connection.sendall(_HEADER.pack(len(frame)) + frame)
            (length,) = _HEADER.unpack(_read(connection, _HEADER.size))
            answer = json.loads(_read(connection, length))
    except (OSError, ValueError) as error:
        raise NotNoted(f"the agent gave no answer: {error}") from error
    if why := answer.get("error") or answer.get("why"):
        raise NotNoted(why)
    return True


def _connected(where: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT_S)
    folder, name = os.path.split(where)
    at = os.open(folder, os.O_PATH | os.O_CLOEXEC)  # a unix address has 108 bytes
    try:
        connection.connect(f"/proc/self/fd/{at}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(at)
    return connection


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        if not (more := connection.recv(size - len(content))):
            raise ConnectionError("it hung up")
        content += more
    return content


def main(arguments: list[str]) -> int:
    """`spot saved`, without its first word. Returns the exit status: 0 noted, 1 not, 2 a mistake in the call."""
    path, step = ".", None
    rest = list(arguments)
    try:
        while rest:
            word = rest.pop(0)
            if word in ("-h", "--help"):
                print(_USAGE)
                return 0
            if word == "--step":
                step = int(rest.pop(0))
            elif word.startswith("-"):
                raise ValueError(f"no such option: {word}")
            else:
                path = word
    except (ValueError, IndexError) as error:
        print(f"spot saved: {error or 'a number is missing'}\n{_USAGE}", file=sys.stderr)
        return 2
    try:
        if not saved(path, step=step):
            print("spot saved: no agent supervises this program: nobody to tell", file=sys.stderr)
    except NotNoted as error:
        print(f"spot saved: {error}", file=sys.stderr)
        return 1
    return 0
