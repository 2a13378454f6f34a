"""A process that has imported torch already and forks a trainer from itself: what takes seconds is paid once.

`python -m tests.kinds.nursery [MODULE ...]`: what is imported beside torch. One JSON line on standard input starts a
script, `{"script", "folder", "env"}`; the child's process id is the answer. `{"wait": pid}` is answered with its exit
status.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

_PRELOADED = (
    "numpy",
    "torch.optim.swa_utils",
    "torch.utils.data",
    "spot_training.session",
    "spot_training.data",
    "spot_training.loop",
)


def main() -> None:
    torch.set_num_threads(1)
    for name in (*_PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    answer.write("ready\n")
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer.write(f"{os.waitstatus_to_exitcode(status)}\n")
        elif pid := os.fork():
            answer.write(f"{pid}\n")
        else:
            answer.close()
            train(order)
            return


def train(order: dict[str, Any]) -> None:
    """Be the script, in this process."""
    os.chdir(order["folder"])
    os.environ.update(order["env"])
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, at in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, at)
    if "KINDS_STRIKE" in os.environ:
        from tests.kinds.strike import Strike

        Strike(os.environ["KINDS_STRIKE"], Path(os.environ["KINDS_SAY"])).arm()
    random.seed(0)  # a fork seeds Python's generator anew, as a start does
    sys.argv = [order["script"]]
    sys.path.insert(0, str(Path(order["script"]).parent))
    runpy.run_path(order["script"], run_name="__main__")


if __name__ == "__main__":
    main()
