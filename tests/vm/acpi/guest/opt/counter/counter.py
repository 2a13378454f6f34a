"""A trainer that needs nothing: counts, saves when it gets SIGUSR1, and goes on from what it saved.

`python3 counter.py FOLDER`
"""

import signal
import sys
import time
from pathlib import Path

_STEP_S = 0.1
_SIZE = 3_000_000


def main() -> None:
    folder = Path(sys.argv[1])
    told = False

    def on_signal(*_: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGUSR1, on_signal)
    folder.mkdir(parents=True, exist_ok=True)
    count = int((folder / "count").read_text()) if (folder / "count").exists() else 0
    print(f"counting from {count}", flush=True)
    while True:
        time.sleep(_STEP_S)
        count += 1
        if told:
            told = False
            (folder / "weights").write_bytes(bytes([count % 256]) * _SIZE)
            (folder / "count").write_text(str(count))
            print(f"saved {count}", flush=True)


if __name__ == "__main__":
    main()
