"""How long a save holds training up: staging into the arena, beside torch copying the same tensors.

The stager is the session's own; nothing is uploaded meanwhile (what that adds shows in the emergency save). Then a
training loop whose every second step has a save ordered in its middle: the copy is made beside forward and backward,
and only the update waits for what is left of it.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypedDict

from infra.bench.figures import BenchError, Comparison, Spread, Target, compare, spread

if TYPE_CHECKING:
    from spot_training.guard import Guard
    from spot_training.stager import Stager
    from spot_training.state import TrainState
    from torch import Tensor

    from infra.bench.state import Training

_PATIENCE_S = 300.0


class Loop(TypedDict):
    """Steps of a training loop, without a save and with one in the middle. `waited`: what the update waited for the
    copy. `stall_s`: what the save cost the step in all, the copying beside it included (difference of the medians)."""

    plain_step: Spread
    saving_step: Spread
    waited: Spread
    stall_s: float


class Result(TypedDict):
    """`stage`: staging (ours) and torch's copy into warm tensors (peer). `times_copy`: staging over copying."""

    bytes: int
    tensors: int
    stage: Comparison
    times_copy: float
    loop: Loop
    identical: bool


def measure(*, size: int, tries: int) -> Result:
    """Measure with `size` bytes of state, in a process of its own. Copies are short: each is made `3 * tries` times."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, size, tries), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(_PATIENCE_S):
            raise BenchError(f"measuring the stall took more than {_PATIENCE_S:.0f} s")
        result: Result = here.recv()
    except EOFError:
        raise BenchError("the process that measures the stall failed: its traceback is above") from None
    finally:
        process.kill()
        process.join()
    if not result["identical"]:
        raise BenchError("what was staged differs from the tensors")
    return result


def targets(result: Result) -> list[Target]:
    return [Target("staging, times a torch copy", result["times_copy"], 1.3, "x")]


def _serve(tell: Connection, size: int, tries: int) -> None:
    from spot_training.guard import Guard  # noqa: PLC0415
    from spot_training.stager import Stager  # noqa: PLC0415
    from spot_training.state import TrainState  # noqa: PLC0415

    from infra.bench.state import Training  # noqa: PLC0415 - torch is for this process only

    training = Training(size)
    training.backward()
    training.update()
    state = TrainState({"model": training.model, "optimizer": training.optimizer})
    guard = Guard(state.note(0))
    stager = Stager(state, guard, lambda message, fds: None, lambda: None)
    stager.prepare()
    tensors = _live(state, guard)
    staged, copied, identical = _alternate(state, guard, stager, 3 * tries)
    result = Result(
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        tensors=len(tensors),
        stage=compare(staged, copied),
        times_copy=round(statistics.median(staged) / statistics.median(copied), 3),
        loop=_train(training, state, guard, stager, tries),
        identical=identical,
    )
    tell.send(result)


def _live(state: TrainState, guard: Guard) -> dict[str, Tensor]:
    """Parameters and optimizer state, by name."""
    tensors = state.snapshot(guard.boundary).tensors
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("rng.")}


def _alternate(state: TrainState, guard: Guard, stager: Stager, tries: int) -> tuple[list[float], list[float], bool]:
    """Seconds of each staging and each copy, and whether both hold the same bytes as the tensors."""
    import torch  # noqa: PLC0415
    from spot_training.tensors import tensors_in  # noqa: PLC0415

    from infra.bench.state import checksums  # noqa: PLC0415

    tensors = _live(state, guard)
    warm = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    def copy() -> None:
        for name, tensor in tensors.items():
            warm[name].copy_(tensor)

    staged, copied = [], []
    for number in range(tries + 2):
        guard.close()
        guard.open(state.note(guard.boundary.step + 1, thorough=False))
        seconds = _timed(lambda: _stage(stager)), _timed(copy)
        if number > 1:  # one for each arena is to warm up
            staged.append(seconds[0])
            copied.append(seconds[1])
    arena = max(stager.held, key=lambda held: held.step).arena
    staged_there = tensors_in(arena.view, size=arena.size)
    there = checksums({name: staged_there[name] for name in tensors})
    return staged, copied, checksums(tensors) == checksums(warm) == there


def _train(training: Training, state: TrainState, guard: Guard, stager: Stager, tries: int) -> Loop:
    plain: list[float] = []
    saving: list[float] = []
    waited: list[float] = []
    for number in range(2 * tries + 2):
        save = threading.Thread(target=_stage, args=(stager,)) if number % 2 else None
        step = guard.boundary.step
        begun = time.monotonic()
        training.backward()  # half of the step's micro batches
        if save:
            save.start()
        training.backward()
        done = time.monotonic()
        guard.close()
        wait = time.monotonic() - done
        training.update()
        guard.open(state.note(guard.boundary.step + 1, thorough=False))
        took = time.monotonic() - begun
        if save:
            save.join()
            if stager.staged_step != step:
                raise BenchError(f"the loop's save of step {step} was not staged: {stager.error}")
        if number > 1:  # the first two are to warm up
            (saving if save else plain).append(took)
            waited += [wait] if save else []
    stall = statistics.median(saving) - statistics.median(plain)
    return Loop(plain_step=spread(plain), saving_step=spread(saving), waited=spread(waited), stall_s=round(stall, 4))


def _stage(stager: Stager) -> None:
    """Stage the newest boundary; the arena is free again at once."""
    if not stager.stage("emergency"):
        raise BenchError(f"nothing was staged: {stager.error}")
    newest = max(stager.held, key=lambda held: held.step)
    stager.free(stager.held.index(newest), newest.step)


def _timed(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun
