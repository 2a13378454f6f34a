"""What pictures that resume cost: our loader beside torch's own `DataLoader`, with the same decoder and workers.

Both read JPEG files of 640 x 480, make normalised pixels of 384 x 384 in two workers, and are taken in turns. And: how
long it takes from an opened data set to its first batch, from the start of an epoch and from its middle.
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from infra.bench.figures import Comparison, Spread, Target, compare, spread

if TYPE_CHECKING:
    from torch import Tensor

    from workloads.pictures.batches import Batches

_PICTURES = 256
_BATCH = 16
_SIZE = 384
_WORKERS = 2
_STEP_S = 0.5


class Result(TypedDict):
    """`seconds`: for as many pictures as there are, ours and torch's; `pictures_per_s` of ours and of torch's.

    `wait_ms`: what a loop with steps of half a second waits for a batch. `state_us`, `state_bytes`: to say where it
    is."""

    seconds: Comparison
    pictures_per_s: tuple[float, float]
    wait_ms: float
    state_us: float
    state_bytes: int
    first_batch: Spread
    resumed_batch: Spread


class Bare:
    """The same pictures, decoded the same way, with nothing else: what a user would write."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        from workloads.pictures.decode import decode  # noqa: PLC0415 - torch is for this measurement only

        return decode(self.files[row].name, self.files[row].read_bytes(), _SIZE)


def measure(*, tries: int) -> Result:
    """Measure in this process and its workers."""
    with tempfile.TemporaryDirectory(prefix="bench-pictures-") as name:
        before = os.environ.get("SPOT_CACHE_DIR")
        os.environ["SPOT_CACHE_DIR"] = f"{name}/cache"
        try:
            return _measure(Path(name, "set"), tries)
        finally:
            os.environ.pop("SPOT_CACHE_DIR")
            if before is not None:
                os.environ["SPOT_CACHE_DIR"] = before


def targets(result: Result) -> list[Target]:
    ours, torchs = result["pictures_per_s"]
    return [
        Target("pictures per second, of torch's", round(ours / torchs, 3), 0.9, "x", "at least"),
        Target("to say where the pictures are", result["state_us"], 50.0, "us"),
        Target("its size", result["state_bytes"], 1024, "B"),
        Target(
            "first batch in an epoch's middle, of its start",
            round(result["resumed_batch"]["median_s"] / result["first_batch"]["median_s"], 2),
            1.25,
            "x",
        ),
    ]


def _measure(folder: Path, tries: int) -> Result:
    from torch.utils.data import DataLoader  # noqa: PLC0415

    files = _write(folder)
    loader: DataLoader[Any] = DataLoader(
        Bare(files),  # type: ignore[arg-type]
        batch_size=_BATCH,
        shuffle=True,
        num_workers=_WORKERS,
        collate_fn=_collate,
        persistent_workers=True,
    )
    batches = _open(folder)
    sides: list[Iterator[Any]] = [batches, _forever(loader)]
    tried: tuple[list[float], list[float]] = ([], [])
    for turn in range(tries + 1):
        for side, seconds in zip(sides, tried, strict=True):
            for _ in range(4):  # what was made while the other had its turn
                next(side)
            begun = time.perf_counter()
            for _ in range(_PICTURES // _BATCH):
                next(side)
            if turn:
                seconds.append(time.perf_counter() - begun)
    compared = compare(*tried)
    begun = time.perf_counter()
    for _ in range(1000):
        batches.state_dict()
    state_us = (time.perf_counter() - begun) * 1e3
    waited = 0.0
    for _ in range(8):
        time.sleep(_STEP_S)
        begun = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - begun
    state = batches.state_dict() | {"samples": _PICTURES * 5 // 2}
    sides.clear()
    del batches, side, loader
    starts = [_first(folder, None) for _ in range(tries)], [_first(folder, state) for _ in range(tries)]
    return Result(
        seconds=compared,
        pictures_per_s=(
            round(_PICTURES / compared["ours"]["median_s"], 1),
            round(_PICTURES / compared["peer"]["median_s"], 1),
        ),
        wait_ms=round(waited / 8 * 1e3, 2),
        state_us=round(state_us, 1),
        state_bytes=len(json.dumps(state)),
        first_batch=spread(starts[0]),
        resumed_batch=spread(starts[1]),
    )


def _first(folder: Path, state: dict[str, Any] | None) -> float:
    batches = _open(folder)
    begun = time.perf_counter()
    if state is not None:
        batches.load_state_dict(state)
    next(batches)
    return time.perf_counter() - begun


def _open(folder: Path) -> Batches:
    from agent.config import Data  # noqa: PLC0415
    from agent.config.pictures import Pictures  # noqa: PLC0415
    from workloads.pictures.batch import Shape  # noqa: PLC0415
    from workloads.pictures.batches import Batches  # noqa: PLC0415
    from workloads.pictures.opened import find  # noqa: PLC0415

    shape = Shape(_SIZE, tokens_per_image=16, sequence_length=64, image_token=300, end_token=301)
    pictures = Pictures(workers=_WORKERS, pack=False)
    found = find(Data(source=str(folder), eval_fraction=0.0, pictures=pictures))
    opened = found.open(lambda texts: [list(text.encode()) for text in texts], tokenizer="bytes", shape=shape)
    return Batches(opened.train, shape, pictures, seed=0, global_batch=_BATCH, micro_batch=_BATCH)


def _collate(pixels: list[Any]) -> Tensor:
    from workloads.pictures.decode import normalise  # noqa: PLC0415

    return normalise(pixels, _SIZE)


def _write(folder: Path) -> list[Path]:
    """Photographs, as far as a decoder is concerned: smooth, with some noise; about 60 KB each."""
    from PIL import Image  # noqa: PLC0415

    chance = random.Random(0)  # noqa: S311
    folder.mkdir(parents=True)
    files = []
    with (folder / "train.jsonl").open("w") as records:
        for number in range(_PICTURES):
            small = Image.frombytes("RGB", (40, 30), chance.randbytes(3600))
            picture = small.resize((640, 480), Image.Resampling.BICUBIC)
            noise = Image.frombytes("RGB", (640, 480), chance.randbytes(640 * 480 * 3))
            out = io.BytesIO()
            Image.blend(picture, noise, 0.06).save(out, "JPEG", quality=88)
            files.append(folder / f"{number:04}.jpg")
            files[-1].write_bytes(out.getvalue())
            records.write(json.dumps({"image": files[-1].name, "question": "what?", "answer": "this"}) + "\n")
    return files


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
