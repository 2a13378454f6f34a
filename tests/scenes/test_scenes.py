"""A scene's answers are true of its picture; the same seed gives the same bytes; nothing of the evaluation leaks."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tests.scenes.conftest import COLOURS, GROUPS
from workloads.scenes import digits
from workloads.scenes.compose import HELD_OUT, PLACES, SIDES, Plan, Thing, plan
from workloads.scenes.make import Recipe, recipe_of, scene, write

DIGITS = Recipe(digits.plan_digits, digits.paint_digits, {})
COUNTS = {"train": 80, "eval": 80}


@pytest.fixture(scope="module")
def folder(things: Sequence[Thing], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "made"
    write(folder, recipe_of(things), COUNTS)
    return folder


def records(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def turns(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for turn in record.get("turns", [record]):
        yield turn["question"], turn["answer"]


def seen(picture: Image.Image) -> dict[tuple[int, int], str]:
    """What the pixels show in each cell: the thing of the colour that is there."""
    names = {ImageColor.getrgb(colour): name for name, colour in COLOURS.items()}
    room = picture.width // 2
    found = {}
    for cell in PLACES:
        part = picture.crop((cell[0] * room, cell[1] * room, (cell[0] + 1) * room, (cell[1] + 1) * room))
        counts = Counter(names[pixel] for pixel in part.get_flattened_data() if pixel in names)
        if counts:
            ((found[cell], _),) = counts.most_common()
    return found


def true_answer(question: str, shown: dict[tuple[int, int], str]) -> str:
    words = question.rstrip("?").split()
    in_order = [shown[cell] for cell in sorted(shown, key=lambda cell: (cell[1], cell[0]))]
    if question == "what is this?":
        (name,) = in_order
        return name
    if question == "what is shown?":
        return ", ".join(in_order)
    if question.startswith("how many"):
        return str(sum(GROUPS[name] == words[2] for name in in_order))
    if question.startswith("what is at the"):
        return shown[next(cell for cell, place in PLACES.items() if question == f"what is at the {place}?")]
    (at,) = [cell for cell, name in shown.items() if name == words[-1]]
    return shown[(at[0] + SIDES[words[2]], at[1])]


def test_every_answer_is_true_of_the_pixels(folder: Path) -> None:
    asked = Counter[str]()
    for split in COUNTS:
        for record in records(folder, split):
            with Image.open(folder / record["images"][0]) as picture:
                shown = seen(picture)
            assert {tuple(placed["cell"]): placed["name"] for placed in record["placed"]} == shown
            for question, answer in turns(record):
                assert answer == true_answer(question, shown), (record, question)
                asked[" ".join(question.split()[:3])] += 1
    assert {*SIDES, "this?", "shown?", "at"} == {start.removeprefix("what is ") for start in asked if "what" in start}


def test_the_region_is_where_the_answer_is(folder: Path) -> None:
    for record in records(folder, "eval"):
        with Image.open(folder / record["images"][0]) as picture:
            size = picture.width
            if record["region"] is None:
                assert record["answer"] == "0"
                continue
            left, top, right, bottom = (round(side * size) for side in record["region"])
            part = picture.crop((left, top, right, bottom))
        names = {name for name, colour in COLOURS.items() if ImageColor.getrgb(colour) in part.get_flattened_data()}
        if record["kind"] == "count":
            wanted = {name for name in names if GROUPS[name] == record["question"].split()[2].rstrip("?")}
            assert wanted
        else:
            assert names == {record["answer"]}
            assert len(set(part.get_flattened_data())) == 1  # nothing but the thing


def test_the_same_seed_gives_the_same_bytes(things: Sequence[Thing], tmp_path: Path) -> None:
    def digest(name: str, recipe: Recipe, seed: int) -> str:
        write(tmp_path / name, recipe, {"train": 8, "eval": 4}, seed=seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        assert len(files) == 2 + 12
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    for kind, recipe in (("things", recipe_of(things)), ("digits", DIGITS)):
        once, again, other = (digest(f"{kind}-{n}", recipe, seed) for n, seed in enumerate((0, 0, 1)))
        assert once == again != other


def plans(things: Sequence[Thing], split: str, count: int) -> list[Plan]:
    """As they are drawn for a split, without painting."""
    drawn = []
    for number in range(count):
        source = Random(f"{split}/{number}")
        planned = plan(things, number, source)
        while split == "train" and planned.held_out:
            planned = plan(things, number, source)
        drawn.append(planned)
    return drawn


def test_nothing_of_the_evaluation_was_trained_on(folder: Path, things: Sequence[Thing]) -> None:
    train, held = records(folder, "train"), records(folder, "eval")
    pictures = {split: {(folder / one["images"][0]).read_bytes() for one in records(folder, split)} for split in COUNTS}
    assert not pictures["train"] & pictures["eval"]
    assert not any(record["new"] for record in train)
    new = sum(record["new"] for record in held)
    assert new > len(held) / HELD_OUT / 4
    trained = {planned.combination for planned in plans(things, "train", 2000)}
    asked = plans(things, "eval", 600)
    assert not trained & {planned.combination for planned in asked if planned.held_out}
    assert {planned.kind for planned in asked if planned.held_out} == {"name", "count", "place", "side"}


def test_the_answers_are_balanced_so_that_the_question_alone_tells_nothing(things: Sequence[Thing]) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for planned in plans(things, "eval", 2400):
        answers[planned.kind][planned.answer] += 1
    assert set(answers) == {"name", "count", "place", "side"}
    for kind, counts in answers.items():
        assert len(counts) == (5 if kind == "count" else len(things))
        assert max(counts.values()) <= 1.1 * sum(counts.values()) / len(counts), kind
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for planned in plans(things, "train", 6000):
        by_question[planned.question][planned.answer] += 1
    for question, counts in by_question.items():
        share = max(counts.values()) / sum(counts.values())
        assert share < 2.0 / len(counts), (question, counts)


def ink(picture: Image.Image) -> bytes:
    """1 where it is the black or white of a digit, row by row."""
    return bytes(pixel in ((0, 0, 0), (255, 255, 255)) for pixel in picture.convert("RGB").get_flattened_data())


def drawn(digit: str, height: int) -> Image.Image:
    font = ImageFont.load_default(height)
    left, top, right, bottom = (round(side) for side in font.getbbox(digit))
    picture = Image.new("RGB", (right - left, bottom - top), "grey")
    ImageDraw.Draw(picture).text((-left, -top), digit, font=font, fill="black")
    return picture


def test_a_digits_region_holds_that_digit_and_the_rest_of_its_quarter_none() -> None:
    known = {
        digit: [drawn(digit, height) for height in range(digits.HEIGHTS[0], digits.HEIGHTS[1] + 1)]
        for digit in "0123456789"
    }
    for number in range(20):
        record, picture = scene(DIGITS, "eval", number)
        left, top, right, bottom = box = [round(side * picture.width) for side in record["region"]]
        inside = ink(picture.crop((left, top, right, bottom)))

        def differs(
            shape: Image.Image, size: tuple[int, int] = (right - left, bottom - top), inside: bytes = inside
        ) -> int:
            return sum(a != b for a, b in zip(ink(shape), inside, strict=True)) if shape.size == size else len(inside)

        likeness = {digit: min(map(differs, shapes)) for digit, shapes in known.items()}
        assert min(likeness, key=lambda digit: likeness[digit]) == record["answer"], (number, likeness)
        room = picture.width // 2
        x, y = left // room * room, top // room * room
        quarter = picture.crop((x, y, x + room, y + room))
        place = PLACES[left // room, top // room]
        assert record["question"] == f"which digit is at the {place}?"
        assert sum(ink(quarter)) <= sum(inside) + 2, box  # noise may be as dark by chance
