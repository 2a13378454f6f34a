"""A session trainer that ends as most scripts do: it returns after its last step, and says nothing.

`python -m tests.promises.ends_itself`. As the library does at the interpreter's exit, it saves its last boundary and
waits until that is committed. ENDS_UNSAVED: it saves nothing. ENDS_WAITS: a file to wait for, then.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from spot_training.protocol.messages import Heartbeat, Line

from tests.promises.light import Light


def main() -> None:
    light = Light()
    welcome = light.restore()
    for work in (light.listen, light.obey):
        threading.Thread(target=work, daemon=True).start()
    light.train(welcome)
    if "ENDS_UNSAVED" in os.environ:
        return
    light.send(Line(light.step, {"step": light.step, "accuracy": 0.5}))
    light.send(Line(light.step, {"step": light.step, "accuracy": 0.5, "loss": 0.25}))
    light.send(Heartbeat(light.step, phase="finishing"))
    light.stage("final")
    with light.news:
        light.news.wait_for(lambda: light.committed_step >= light.step, 30.0)
    while (path := os.environ.get("ENDS_WAITS")) and not Path(path).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    main()
