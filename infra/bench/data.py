"""What data that resumes costs a batch: our loader beside torch's own, over the same rows, taken in turns.

`small`: rows that cost next to nothing, so that all that is left is the loader; `workers`: pictures with random noise,
made by two workers, while steps of 10 ms go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict

from infra.bench.figures import Comparison, Target, compare

if TYPE_CHECKING:
    from torch import Tensor

_BATCHES = 300
_STEP_S = 0.01


class Result(TypedDict):
    """Seconds that a loop waits for 1,000 batches, ours and torch's, which is milliseconds a batch.

    `state_us`: microseconds to say where the loop is."""

    small: Comparison
    workers: Comparison
    state_us: float


class Pictures:
    """1,000 rows of 3 x 64 x 64 with noise."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, row: int) -> Tensor:
        import torch  # noqa: PLC0415

        return torch.full((3, 64, 64), float(row)) + torch.rand(3, 64, 64)


def measure(*, tries: int) -> Result:
    """Measure in this process."""
    import torch  # noqa: PLC0415 - torch is for this measurement only
    from spot_training import ResumableLoader  # noqa: PLC0415

    rows = torch.utils.data.TensorDataset(torch.zeros(20_000, 128), torch.zeros(20_000, dtype=torch.int64))
    small: dict[str, Any] = {"batch_size": 32, "shuffle": True}
    workers: dict[str, Any] = {"batch_size": 16, "shuffle": True, "num_workers": 2, "persistent_workers": True}
    loader: ResumableLoader[Any] = ResumableLoader(rows, **small)
    next(loader.forever())
    begun = time.perf_counter()
    for _ in range(1000):
        loader.state_dict()
    state_us = (time.perf_counter() - begun) * 1e3
    return Result(
        small=_compare(ResumableLoader(rows, **small), torch.utils.data.DataLoader(rows, **small), tries, 0.0),
        workers=_compare(
            ResumableLoader(Pictures(), **workers),
            torch.utils.data.DataLoader(Pictures(), **workers),  # type: ignore[arg-type]
            tries,
            _STEP_S,
        ),
        state_us=round(state_us, 1),
    )


def targets(result: Result) -> list[Target]:
    more = result["small"]["ours"]["median_s"] - result["small"]["peer"]["median_s"]
    return [Target("a batch of small rows, more than torch's", round(more, 3), 1.0, "ms")]


def _compare(ours: Any, peer: Any, tries: int, step_s: float) -> Comparison:
    sides = [_forever(ours), _forever(peer)]
    for side in sides:
        _seconds(side, 20, step_s)
    tried: tuple[list[float], list[float]] = ([], [])
    for _ in range(tries):
        for side, seconds in zip(sides, tried, strict=True):
            seconds.append(_seconds(side, _BATCHES if not step_s else _BATCHES // 5, step_s))
    return compare(*tried)


def _seconds(batches: Iterator[Any], count: int, step_s: float) -> float:
    """Seconds that the loop waits for 1,000 batches."""
    waited = 0.0
    for _ in range(count):
        begun = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - begun
        time.sleep(step_s)
    return waited / count * 1e3


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
