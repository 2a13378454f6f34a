"""Accuracy by kind of question, beside what nobody has to look for; and a sheet that can be looked at."""

import torch
from PIL import Image

from workloads.pictures.batch import IGNORED, Batch, Sample
from workloads.scenes.score import answers, as_text, table
from workloads.scenes.sheet import Tile, sheet


def sample(question: str, answer: str, kind: str, *, new: bool = False) -> Sample:
    return Sample("eval.jsonl:1", (), ((question, answer),), {"kind": kind, "new": new})


def batch(labels: list[list[int]], samples: list[Sample]) -> Batch:
    rows = torch.tensor(labels)
    return Batch(torch.zeros(0, 3, 8, 8), rows, rows, rows, rows, tuple((one,) for one in samples))


def saying(tokens: list[list[int]]) -> torch.Tensor:
    """Logits whose likeliest token at each place is the one given."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), 10).float()


def test_an_answer_is_right_when_every_token_of_it_is() -> None:
    rows = [[IGNORED, IGNORED, 5, 2, IGNORED]] * 3
    asked = [sample("what?", name, "name") for name in ("owl", "fox", "bus")]
    said = answers(batch(rows, asked), saying([[0, 5, 2, 0, 0], [0, 5, 3, 0, 0], [0, 4, 2, 0, 0]]))
    assert [answer.right for answer in said] == [True, False, False]
    assert [answer.said for answer in said] == [(5, 2), (5, 3), (4, 2)]
    assert [answer.sample for answer in said] == asked


def test_the_table_says_what_looking_was_worth() -> None:
    asked = [
        sample("what is this?", "owl", "name"),
        sample("what is this?", "fox", "name", new=True),
        sample("how many birds?", "1", "count"),
        sample("how many birds?", "2", "count", new=True),
    ]
    labels = [[IGNORED, number] for number in range(1, 5)]
    seen = answers(batch(labels, asked), saying([[1, 0], [2, 0], [3, 0], [9, 0]]))
    unseen = answers(batch(labels, asked), saying([[1, 0], [1, 0], [4, 0], [9, 0]]))
    trained = [
        asked[0],
        asked[0],
        asked[1],
        Sample("train.jsonl:9", (), (("how many birds?", "2"), ("what is this?", "owl"))),
    ]
    rows = {row.kind: row for row in table(seen, unseen, trained)}
    assert list(rows) == ["count", "name", "all", "new combinations"]
    assert [rows["name"].accuracy, rows["count"].accuracy, rows["all"].accuracy] == [1.0, 0.5, 0.75]
    assert [rows["name"].text_only, rows["count"].text_only] == [0.5, 0.0]
    assert [rows["name"].majority, rows["count"].majority] == [0.5, 0.5]
    assert rows["all"].chance == 0.5
    assert (rows["new combinations"].questions, rows["new combinations"].accuracy) == (2, 0.5)
    assert "| name | 2 | 50.0% | 50.0% | 50.0% | 100.0% |" in as_text(list(rows.values()))


def test_a_sheet_shows_each_picture_and_frames_it_by_right_and_wrong() -> None:
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("blue", "yellow")]
    drawn = sheet(
        [
            Tile(pictures[0], "what is this?", "owl", "owl"),
            Tile(pictures[1], "how many birds are there on it?", "3", "2"),
        ]
    )
    page = drawn.convert("RGB")
    colours = [colour for _, colour in page.getcolors(1 << 16) or []]
    counts = {colour: count for count, colour in page.getcolors(1 << 16) or []}
    assert counts[0, 0, 255] == counts[255, 255, 0] == 144 * 144
    assert (22, 128, 60) in colours and (196, 32, 32) in colours
    left, other = page.crop((0, 0, 164, page.height)), page.crop((164, 0, 328, page.height))
    assert (196, 32, 32) not in [colour for _, colour in left.getcolors(1 << 16) or []]
    assert (22, 128, 60) not in [colour for _, colour in other.getcolors(1 << 16) or []]
