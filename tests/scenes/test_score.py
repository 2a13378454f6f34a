"""Accuracy by kind of question, beside what nobody has to look for; and a sheet that can be looked at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Picture

from workloads.pictures.batch import IGNORED, Batch, Sample
from workloads.scenes.report import report
from workloads.scenes.score import answers, as_text, table

HALVES = ((0, 0, 164, 212), (164, 0, 328, 212))
"""Of a sheet of two pictures."""


def sample(question: str, answer: str, kind: str, *, new: bool = False) -> Sample:
    return Sample("eval.jsonl:1", (), ((question, answer),), {"kind": kind, "new": new})


def batch_of(labels: list[list[int]], samples: list[Sample]) -> Batch:
    rows = torch.tensor(labels)
    return Batch(torch.zeros(0, 3, 8, 8), rows, rows, rows, rows, tuple((one,) for one in samples))


def saying(tokens: list[list[int]]) -> torch.Tensor:
    """Logits whose likeliest token at each place is the one given."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), 10).float()


def test_an_answer_is_right_when_every_token_of_it_is() -> None:
    rows = [[IGNORED, IGNORED, 5, 2, IGNORED, 7, IGNORED]] * 3
    asked = [replace(sample("", "", "name"), turns=(("what?", name), ("how many?", "7"))) for name in "abc"]
    said = answers(batch_of(rows, asked), saying([[0, 5, 2, 0, 7, 0, 0], [0, 5, 3, 0, 7, 0, 0], [0, 4, 2, 0, 6, 0, 0]]))
    assert [answer.right for answer in said] == [True, True, False, True, False, False]
    assert [answer.said for answer in said] == [(5, 2), (7,), (5, 3), (7,), (4, 2), (6,)]
    assert [(answer.sample, answer.truth) for answer in said[::2]] == list(zip(asked, "abc", strict=True))
    assert {answer.question for answer in said[1::2]} == {"how many?"}


def test_the_table_says_what_looking_was_worth() -> None:
    asked = [
        sample("what is this?", "owl", "name"),
        sample("what is this?", "fox", "name", new=True),
        sample("how many birds?", "1", "count"),
        sample("how many birds?", "2", "count", new=True),
    ]
    labels = [[IGNORED, number] for number in range(1, 5)]
    seen = answers(batch_of(labels, asked), saying([[1, 0], [2, 0], [3, 0], [9, 0]]))
    unseen = answers(batch_of(labels, asked), saying([[1, 0], [1, 0], [4, 0], [9, 0]]))
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


def test_the_report_asks_with_and_without_the_picture_and_frames_each_by_right_and_wrong(tmp_path: Path) -> None:
    picture: Any = "images/1.png"
    asked = [
        Sample("eval.jsonl:1", (picture,), (("what is this?", "owl"),), {"kind": "name"}),
        Sample("eval.jsonl:2", (), (("a question without any picture, and a long one?", "owl"),), {"kind": "name"}),
        Sample("eval.jsonl:3", (picture,), (("how many birds are there on this one?", "2"),), {"kind": "count"}),
    ]
    batch = replace(batch_of([[IGNORED, 1], [IGNORED, 1], [IGNORED, 3]], asked), pixels=torch.ones(2, 3, 8, 8))
    batch.pixels[1, 2] = -1.0  # yellow
    beats: list[None] = []

    def logits_of(batch: Batch) -> torch.Tensor:
        return saying([[1, 0], [1, 0], [4, 0]] if batch.pixels.any() else [[2, 0], [1, 0], [3, 0]])

    row = report(
        tmp_path,
        [batch],
        logits_of,
        decode=lambda tokens: " ".join("abcdef"[token] for token in tokens),
        trained=asked,
        beat=lambda: beats.append(None),
    )
    assert (row.kind, row.questions, round(row.accuracy, 2), round(row.text_only, 2)) == ("all", 3, 0.67, 0.67)
    told = json.loads((tmp_path / "answers.json").read_text())["answers"]
    assert [(one["kind"], one["accuracy"], one["text_only"]) for one in told[:2]] == [("count", 0, 1), ("name", 1, 0.5)]
    assert len(beats) == 1
    with Picture.open(tmp_path / "answers.png") as drawn:
        page = drawn.convert("RGB")
    halves = [{ink: count for count, ink in page.crop(half).getcolors(1 << 16) or []} for half in HALVES]
    wrong, right = sorted(halves, key=lambda half: (255, 255, 0) not in half)  # the yellow one is
    assert right[255, 255, 255] > 144 * 144
    assert wrong[255, 255, 0] == 144 * 144
    assert (22, 128, 60) in right and (22, 128, 60) not in wrong
    assert (196, 32, 32) in wrong and (196, 32, 32) not in right
