"""Any program, for `kind: command`, with a truth to tell: counts, saves now and then and when it gets SIGUSR1.

`python -m tests.promises.counter FOLDER`; the environment is that of `tests.promises.light`. It saves two files, one
after the other, and says when it finds that they do not belong together.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from tests.promises.light import Truth

SAVE_EVERY_S = 2.5  # more than the second that a folder must stand still


def main() -> None:
    folder, truth = Path(sys.argv[1]), Truth(os.environ["LIGHT_TRUTH"])
    truth.tell("started", 0)
    step_s = float(os.environ.get("LIGHT_STEP_S", "0.03"))
    told = False

    def on_signal(*_: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGUSR1, on_signal)
    time.sleep(float(os.environ.get("LIGHT_IMPORT_S", "0")))
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    count, big = 0, b""
    with contextlib.suppress(FileNotFoundError):
        count = int((folder / "deep" / "count").read_text())
        big = (folder / "big").read_bytes()
    truth.tell("restored", count, "whole" if big == content(count) else "torn")
    saved_at, end = time.monotonic(), float("inf")
    while count < end:
        time.sleep(step_s)
        if os.path.exists(os.environ["LIGHT_FLOOD"]):  # noqa: PTH110 - once a step
            os.write(1, b"".join(b"%d of a flood\r" % at for at in range(20_000)))
        count += 1
        truth.tell("trained", count)
        with contextlib.suppress(OSError, ValueError):
            end = int(Path(os.environ["LIGHT_END"]).read_text())
        if told or count >= end or time.monotonic() - saved_at > SAVE_EVERY_S:
            told, saved_at = False, time.monotonic()
            (folder / "deep" / "count").write_text(str(count))
            (folder / "big").write_bytes(content(count))
            truth.tell("saved", count)
    truth.tell("finished", count)


def content(count: int) -> bytes:
    return bytes([count % 256]) * (300_000 if count else 0)


if __name__ == "__main__":
    main()
