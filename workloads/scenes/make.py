"""Folders of scenes: train.jsonl, eval.jsonl and images/, made once on a machine from a seed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from agent.config import Data
from agent.config.pictures import Pictures
from agent.config.places import SCENES
from workloads.errors import DataError
from workloads.folders import cache_folder
from workloads.scenes import compose, digits, panes
from workloads.scenes.compose import Box, Cell, Plan, Thing, paint, plan
from workloads.scenes.packages import EMOJI, STAMPS, unpacked
from workloads.scenes.things import EMOJI_FILES, STAMP_FILES, load_things

FORMAT = 2
"""Raised when the same seed would give other scenes: older folders are not used any more."""
SIZE = 64
"""Pixels of a side of a scene of things."""
COUNTS = {"train": 6000, "eval": 480}
MORE_TURNS = 1
"""Further questions about a scene that is trained on, before all that is on it. With three, it took several times as
long until places were told apart: their answers are half given away by what was asked and answered before."""

Painter = Callable[[Plan, Random], tuple[Image.Image, dict[Cell, Box]]]
Planner = Callable[[int, Random], Plan]


@dataclass(frozen=True)
class Recipe:
    """How scenes of one name are made."""

    plan: Planner
    paint: Painter
    groups: dict[str, str]
    """Of each thing. {}: no question goes by group, and one is asked of each picture."""


def scenes_folder(source: str) -> Path:
    """The folder that `scenes:NAME` stands for: from the cache, else made.

    Raises:
        DataError: there are no such scenes, or what they are made of can't be had.
    """
    if source not in SCENES:
        raise DataError(f"there are no {source!r}: write {', '.join(SCENES)}")
    name = source.removeprefix("scenes:")
    folder = cache_folder() / f"scenes-{name}-{FORMAT}"
    if folder.is_dir():
        return folder
    recipe = _recipe(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="aside-", dir=folder.parent) as aside:
            made = Path(aside, "made")
            print(f"composing {sum(COUNTS.values())} scenes of {name}, once on this machine", flush=True)
            write(made, recipe, COUNTS)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker with the same scenes
                    raise
    except OSError as error:
        raise DataError(f"can't write the cache {folder.parent}: {error.strerror}; set SPOT_CACHE_DIR") from error
    return folder


def with_scenes(data: Data) -> Data:
    """`data` as it is, or of the folder that its scenes are in, with their own evaluation unless the run file says
    otherwise. Raises DataError."""
    if data.source not in SCENES:
        return data
    changed: dict[str, Any] = {"source": str(scenes_folder(data.source))}
    pictures = data.pictures or Pictures()
    if not pictures.eval_records and "eval_fraction" not in data.model_fields_set:
        changed["pictures"] = pictures.model_copy(update={"eval_records": ("eval.jsonl",)})
    return data.model_copy(update=changed)


def _recipe(name: str) -> Recipe:
    if name == "digits":
        return Recipe(digits.plan_digits, digits.paint_digits, {})
    if name == "panes":
        return Recipe(panes.plan_panes, panes.paint_panes, {})
    if name == "stamps":
        return recipe_of(load_things(unpacked(STAMPS), STAMP_FILES))
    return recipe_of(load_things(unpacked(EMOJI), EMOJI_FILES))


def recipe_of(things: Sequence[Thing], size: int = SIZE) -> Recipe:
    """Scenes of `things`."""
    return Recipe(
        lambda number, source: plan(things, number, source),
        lambda plan, source: paint(plan, things, size, source),
        {thing.name: thing.group for thing in things},
    )


def write(folder: Path, recipe: Recipe, counts: dict[str, int], *, seed: int = 0) -> None:
    """Write so many scenes of each split. The same seed, the same bytes (with the same Pillow). Raises OSError."""
    (folder / "images").mkdir(parents=True)
    for split, count in counts.items():
        with (folder / f"{split}.jsonl").open("w") as out:
            for number in range(count):
                file = f"images/{split}-{number:05}.png"
                record, picture = scene(recipe, split, number, seed=seed)
                picture.save(folder / file)
                out.write(json.dumps({"images": [file], **record}) + "\n")


def scene(recipe: Recipe, split: str, number: int, *, seed: int = 0) -> tuple[dict[str, Any], Image.Image]:
    """One record but for its picture's name, and the picture. Nothing that is held out is in `train`."""
    source = Random(f"{seed}/{split}/{number}")  # noqa: S311 - no secret
    planned = recipe.plan(number, source)
    while split == "train" and planned.held_out:
        planned = recipe.plan(number, source)
    picture, boxes = recipe.paint(planned, source)
    record: dict[str, Any] = {"kind": planned.kind}
    if split == "train" and recipe.groups:
        turns = [(planned.question, planned.answer), *compose.further(planned, recipe.groups, MORE_TURNS, source)]
        record["turns"] = [{"question": question, "answer": answer} for question, answer in turns]
    else:
        record |= {"question": planned.question, "answer": planned.answer}
    size = picture.width
    record["region"] = _share(_around([boxes[cell] for cell in planned.shows]), size)
    record["new"] = planned.held_out
    record["placed"] = [
        {"name": name, "cell": cell, "box": _share(boxes[cell], size)} for cell, name in sorted(planned.placed.items())
    ]
    return record, picture


def _around(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all; None where the answer is that there is nothing."""
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _share(box: Box | None, size: int) -> list[float] | None:
    return None if box is None else [round(side / size, 4) for side in box]
