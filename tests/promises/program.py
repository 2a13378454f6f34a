"""Any program, for `kind: command`: counts in steps of 50 ms, saves when it gets SIGUSR1, and goes on from its folder.

`python -m tests.promises.program FOLDER STEPS`
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    told = False

    def on_signal(*_: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGUSR1, on_signal)
    folder.mkdir(parents=True, exist_ok=True)
    count = int((folder / "deep" / "count").read_text()) if (folder / "deep" / "count").exists() else 0
    print(f"counting from {count}", flush=True)
    while count < steps:
        time.sleep(0.05)
        count += 1
        if told or count == steps:
            told = False
            (folder / "deep").mkdir(exist_ok=True)
            (folder / "deep" / "count").write_text(str(count))
            (folder / "big").write_bytes(bytes([count % 256]) * 3_000_000)
            print(f"saved {count}", flush=True)


if __name__ == "__main__":
    main()
