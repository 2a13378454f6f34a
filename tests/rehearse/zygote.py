"""A process that has torch imported, and forks a trainer whenever it is asked: a life begins in milliseconds.

Each line of its input is a request: the script, its folder, what its environment has besides, and its log. It answers
with the new process' number, and when that has ended with its status.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import sys

import numpy as np
import torch
import torch._dynamo  # the first optimizer would load it: seconds in each life
from spot_training import digests, draws, probe, session, survey  # noqa: F401 - loaded once for all


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            break
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)
    else:
        return
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.update(request["env"])
    for generator in (random, np.random):  # a new process is seeded by the system, and so is this one
        generator.seed()
    torch.seed()
    sys.argv = [request["script"]]
    sys.path.insert(0, request["folder"])
    runpy.run_path(request["script"], run_name="__main__")


if __name__ == "__main__":
    main()
