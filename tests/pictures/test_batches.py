import json
from pathlib import Path

import torch
from PIL import Image as Pillow

from workloads.pictures.batch import IGNORED, GlobalBatch, Shape
from workloads.pictures.batches import Batches
from workloads.pictures.source import Folder

SHAPE = Shape(image_size=8, tokens_per_image=4, sequence_length=48, image_token=300, end_token=301)


def tokens_of(text: str) -> list[int]:
    return list(text.encode())


def write_folder(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    with (folder / "train.jsonl").open("w") as out:
        for number in range(count):
            name = f"images/{number:04}.png"
            Pillow.new("RGB", (10, 6), (number % 256, 7, 9)).save(folder / name)
            record = {"images": [name], "question": "how many?", "answer": "x" * (number % 7 + 1), "number": number}
            out.write(json.dumps(record) + "\n")
    return folder / "train.jsonl"


def open_batches(path: Path, *, pack: bool) -> Batches:
    return Batches([Folder(path, tokens_of, SHAPE)], SHAPE, seed=3, global_batch=4, micro_batch=2, pack=pack)


def numbers(batch: GlobalBatch) -> list[int]:
    return [sample.facts["number"] for micro in batch.micro_batches for row in micro.samples for sample in row]


def test_an_epoch_has_each_sample_once_and_a_batch_says_what_belongs_where(tmp_path: Path) -> None:
    path = write_folder(tmp_path, 23)
    for pack in (False, True):
        batches = open_batches(path, pack=pack)
        seen: list[int] = []
        while len(seen) < 23:
            batch = next(batches)
            seen += numbers(batch)
            counted = 0
            for micro in batch.micro_batches:
                assert micro.pixels.shape[0] == sum(len(row) for row in micro.samples)
                assert int((micro.ids == 300).sum()) == 4 * micro.pixels.shape[0]
                red = ((micro.pixels[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
                assert red == [sample.facts["number"] for row in micro.samples for sample in row]
                counted += int((micro.labels[:, 1:] != IGNORED).sum())
                for row, segments, positions in zip(micro.samples, micro.segments, micro.positions, strict=True):
                    assert segments.max() == len(row)
                    assert int((positions[segments > 0] == 0).sum()) == len(row)
            assert counted == batch.targets
        assert sorted(seen[:23]) == list(range(23))
        assert not pack or max(len(row) for row in micro.samples) > 1


def test_a_resumed_run_goes_on_with_the_very_batch_that_was_next(tmp_path: Path) -> None:
    path = write_folder(tmp_path, 23)
    straight = open_batches(path, pack=True)
    expected = [next(straight) for _ in range(6)]
    broken = open_batches(path, pack=True)
    for _ in range(3):
        next(broken)
    resumed = open_batches(path, pack=True)
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    for was, now in zip(expected[3:], resumed, strict=False):
        for one, other in zip(was.micro_batches, now.micro_batches, strict=True):
            assert torch.equal(one.pixels, other.pixels) and torch.equal(one.ids, other.ids)
