"""The toy trainer in a cgroup of little memory, which it eats at one step, once a VM.

`python -m tests.promises.hungry RUN.yaml`; HUNGRY_CGROUP is the cgroup's folder, HUNGRY_STEP the step.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.promises import toy


class Hungry(toy.Pause):
    """Eats where the toy would pause."""

    def at(self, phase: str) -> None:
        eaten = Path(os.environ["SPOT_STATE_DIR"], "eaten")
        if phase == "forward" and self.step == int(os.environ["HUNGRY_STEP"]) and not eaten.exists():
            time.sleep(0.5)  # until the agent has been handed the snapshot of the boundary before
            eaten.touch()
            hoard = []
            while True:
                hoard.append(b"x" * (1 << 20))  # at once: while the snapshot still drains


if __name__ == "__main__":
    Path(os.environ["HUNGRY_CGROUP"], "cgroup.procs").write_text(str(os.getpid()))
    toy.Pause = Hungry  # type: ignore[misc]
    toy.main()
