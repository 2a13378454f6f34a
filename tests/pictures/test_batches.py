"""Batches: each sample once an epoch, what belongs where in a row, refusals."""

from pathlib import Path

import torch
from spot_training.passing import Passes

from tests.pictures.conftest import numbers, open_batches, write_folder
from workloads.pictures.batch import IGNORED


def test_an_epoch_has_each_sample_once_and_a_batch_says_what_belongs_where(tmp_path: Path) -> None:
    write_folder(tmp_path, 23)
    for pack in (False, True):
        batches = open_batches(tmp_path, pack=pack)
        seen: list[int] = []
        chance = torch.get_rng_state()
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
        assert torch.equal(torch.get_rng_state(), chance), "the trainer's own random numbers would be others on resume"
        while len(seen) < 46:
            seen += numbers(next(batches))
        assert sorted(seen[:23]) == sorted(seen[23:46]) == list(range(23)) != seen[:23] != seen[23:46]
        assert not pack or max(len(row) for row in micro.samples) > 1


def test_what_is_passed_over_is_left_out_and_nothing_else_whoever_goes_on(tmp_path: Path) -> None:
    write_folder(tmp_path, 40)
    for pack in (False, True):
        straight = open_batches(tmp_path, pack=pack)
        assert isinstance(straight, Passes), "what a session asks for"
        places = [straight.place()]
        seen: list[int] = []
        for _ in range(6):
            seen += numbers(next(straight))
            places.append(straight.place())
        spans = [[places[1], places[2]], [places[4], places[4] + 1]]
        left_out = {number for start, end in spans for number in range(start, end)}
        wanted = [number for place, number in enumerate(seen) if place not in left_out]

        batches = open_batches(tmp_path, pack=pack)
        batches.pass_over(spans)
        got = numbers(next(batches))
        resumed = open_batches(tmp_path, pack=pack)
        resumed.load_state_dict(batches.state_dict())
        resumed.pass_over(spans)
        got += [number for _ in range(3) for number in numbers(next(resumed))]
        assert sorted(got) == sorted(wanted[: len(got)])
