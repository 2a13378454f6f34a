"""Records as people write them, and what is refused by name."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from agent.config import Data
from agent.config.pictures import Pictures
from tests.pictures.conftest import SHAPE, open_batches, open_folder, picture, record, tokens_of, write_folder
from workloads.pictures.batch import DataError
from workloads.pictures.batches import eval_batches
from workloads.pictures.decode import Broken, Change, decode
from workloads.pictures.opened import find

TURNS = (("what?", "this"), ("and?", "that"))
SAME: dict[str, dict[str, Any]] = {
    "turns": {"turns": [{"question": "what?", "answer": "this"}, ["and?", "that"]]},
    "LLaVA": {
        "conversations": [
            {"from": "human", "value": "what?"},
            {"from": "gpt", "value": "this"},
            {"from": "human", "value": "and?"},
            {"from": "gpt", "value": "that"},
        ]
    },
    "chat": {
        "messages": [
            {"role": "user", "content": "what?"},
            {"role": "assistant", "content": "this"},
            {"role": "user", "content": [{"type": "text", "text": "and?"}]},
            {"role": "assistant", "content": "that"},
        ]
    },
}


def write(folder: Path, *records: Any, name: str = "train.jsonl") -> Path:
    write_folder(folder, 2)
    (folder / name).write_text("\n".join(json.dumps(each) for each in records))
    return folder


@pytest.mark.parametrize("form", SAME)
def test_each_way_to_write_a_dialogue_says_the_same(form: str, tmp_path: Path) -> None:
    (source,) = open_folder(write(tmp_path, {"image": "images/0001.png", **SAME[form], "kind": "x"})).train
    sample, text = source.sample(0), source.text(0)
    assert (sample.turns, sample.facts) == (TURNS, {"kind": "x"})
    said = b"what?\nthis|and?\nthat|"
    assert [300, *(301 if byte == ord("|") else byte for byte in said)] == list(text.ids)
    assert bytes(byte for byte, learnt in zip(said, text.learnt[1:], strict=True) if learnt) == b"\nthis|\nthat|"


def test_pictures_stand_where_the_text_says_and_come_first_without_it(tmp_path: Path) -> None:
    two = ["images/0000.png", "images/0001.png"]
    placed = {"images": two, "question": "is <image>\nas <image>", "answer": "yes"}
    first = {"images": two, "question": "same", "answer": "yes"}
    none = {"question": "what is red?", "answer": "a colour"}
    (source,) = open_folder(write(tmp_path, placed, first, none)).train
    where = [[place for place, token in enumerate(source.text(row).ids) if token == 300] for row in range(3)]
    assert where == [[2, 5], [0, 1], []]
    (batch,) = eval_batches(source, SHAPE, micro_batch=3)
    assert batch.pixels.shape[0] == 4, "a text without pictures has none"


def test_a_sample_longer_than_a_row_loses_its_last_turns_and_that_is_told(tmp_path: Path) -> None:
    turns = [["what is it?", "a thing of some length"]] * 3
    opened = open_folder(write(tmp_path, {"images": ["images/0001.png"], "turns": turns}))
    assert len(opened.train[0].sample(0).turns) == 1 and opened.train[0].length(0, 4) <= SHAPE.sequence_length
    assert "2 turns of 1 samples don't fit into a row" in opened.told()


REFUSED = {
    "a picture that is not there": ({"images": ["images/9.png"], "answer": "x"}, r"jsonl:1 names .*'images/9\.png'"),
    "nothing to learn": ({"images": ["images/0001.png"], "question": "what?"}, "train.jsonl:1 has a question"),
    "no known key": ({"prompt": "a", "completion": "b"}, "has keys prompt, completion: write"),
    "a place too many": ({"images": ["images/0001.png"], "question": "<image><image>", "answer": "x"}, "2 times <ima"),
    "too long": ({"images": ["images/0001.png"], "answer": "x" * 99}, "104 tokens, more than data.sequence_length, 48"),
    "an unknown speaker": ({"messages": [{"role": "tool", "content": "x"}]}, "nobody knows who 'tool' is"),
    "an open question": ({"messages": [{"role": "user", "content": "x"}]}, "ends with a question that nobody answers"),
    "no record": ("text", "is no record but str"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_record_that_can_not_be_learnt_from_is_refused_by_its_line(what: str, tmp_path: Path) -> None:
    given, words = REFUSED[what]
    with pytest.raises(DataError, match=words):
        open_folder(write(tmp_path, given))


def test_a_broken_picture_stops_the_run_or_is_left_out_and_counted_up_to_a_bound(tmp_path: Path) -> None:
    write_folder(tmp_path, 8)
    for number in (2, 5):
        (tmp_path / f"images/{number:04}.png").write_bytes(b"no picture")
    (tmp_path / "images/0006.png").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl:7 names .* there is no images/0006\.png"):
        open_batches(tmp_path)
    skipping = open_batches(tmp_path, on_broken="skip", pack=False)
    broken: list[str] = []
    for batch in (next(skipping), next(skipping)):
        broken += batch.broken
        for micro in batch.micro_batches:
            for (sample,), labels, pixels in zip(micro.samples, micro.labels, micro.pixels, strict=True):
                left_out = sample.facts["number"] in (2, 5, 6)
                assert left_out == bool((labels < 0).all()) == bool(pixels.abs().max() < 0.01)
    assert sorted(name.partition(": ")[0] for name in broken) == [f"train.jsonl:{line}" for line in (3, 6, 7)]
    resumed = open_batches(tmp_path, on_broken="skip", pack=False, broken_limit=5)
    resumed.load_state_dict(skipping.state_dict())
    with pytest.raises(DataError, match=r"6 samples were left out .*broken_limit, 5; the last: train\.jsonl:"):
        for _ in range(2):
            next(resumed)
    (tmp_path / "images/0006.png").write_bytes(picture(6))
    with pytest.raises(DataError, match=r"^train\.jsonl:[36]: images/000[25]\.png is no picture that can be read"):
        for batch in (batches := open_batches(tmp_path)):
            assert batch and batches.samples < 8


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path, 20)
    write_folder(tmp_path, 5, first=50, records="eval.jsonl")

    def of(**given: Any) -> tuple[set[int], set[int]]:
        opened = find(Data(source=str(tmp_path), **given)).open(tokens_of, tokenizer="bytes", shape=SHAPE)
        train, held = (
            {source.sample(row).facts["number"] for source in sources for row in range(len(source))}
            for sources in (opened.train, opened.held)
        )
        return train, held

    train, held = of(eval_fraction=0.25)
    assert len(held) == 5 and train | held == {*range(20)} and not train & held
    assert of(eval_fraction=0.25) == (train, held)
    assert of(pictures=Pictures(eval_records=("eval.jsonl",))) == ({*range(20)}, {*range(50, 55)})


def test_pixels_are_what_a_viewer_shows() -> None:
    """White where it is transparent, turned as the camera was held, all of it whatever its sides."""
    clear = Pillow.new("RGBA", (4, 4), (0, 0, 0, 0))
    turned = Pillow.new("RGB", (20, 10), "red")
    turned.paste("blue", (10, 0, 20, 10))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was held upright: the left side is the top
    for image, form, corner, how in (
        (clear, "PNG", (255, 255, 255), {}),
        (turned, "JPEG", (254, 0, 0), {"exif": exif, "quality": 100, "subsampling": 0}),
    ):
        out = BytesIO()
        image.save(out, form, **how)
        pixels = decode("it", out.getvalue(), 8)
        assert pixels.shape == (8, 8, 3)
        assert tuple(pixels[0, 0].tolist()) == corner and tuple(pixels[0, 7].tolist()) == corner
    assert pixels[7, 0].tolist() == [0, 0, 254], "blue is below"
    with pytest.raises(Broken, match=r"^it is no picture that can be read \(30 bytes\)"):
        decode("it", out.getvalue()[:30], 8)
    with pytest.raises(Broken, match="it is no picture"):
        decode("it", out.getvalue()[:-200], 8)


def test_augmentation_is_a_function_of_the_sample_and_takes_its_region_along() -> None:
    one, again, other = (Change.of("crop", 0, 0, epoch, 5) for epoch in (1, 1, 2))
    assert one == again != other
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[40:60, 20:50] = 255
    out = BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG")
    seen = decode("it", out.getvalue(), 100, Change(one.box))
    left, top, right, bottom = one.facts({"region": [0.2, 0.4, 0.5, 0.6]})["region"]
    rows, columns = np.nonzero(seen[:, :, 0] > 127)
    found = [columns.min() / 100, rows.min() / 100, (columns.max() + 1) / 100, (rows.max() + 1) / 100]
    assert np.abs(np.array([left, top, right, bottom]) - found).max() < 0.015
    assert found != [0.2, 0.4, 0.5, 0.6]


def test_a_hugging_face_data_set_has_its_pictures_inside(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    arrow = pytest.importorskip("pyarrow")
    rows = [record(number) for number in range(6)]
    columns = {name: [row[name] for row in rows] for name in ("question", "answer", "number")}
    columns["image"] = [{"bytes": picture(number), "path": None} for number in range(6)]
    kinds = {"question": "string", "answer": "string", "number": "int64"}
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()} | {"image": {"_type": "Image"}}
    table = arrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "set").mkdir()
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "set/train.parquet")
    write_folder(tmp_path / "folder", 6)
    parquet = datasets.load_dataset(f"{tmp_path}/set", split="train")
    parquet.cast_column("image", datasets.Image()).save_to_disk(f"{tmp_path}/saved")
    for name in ("set", "saved"):
        inside, beside = (
            open_batches(source, pack=False) for source in (f"hf://{tmp_path}/{name}", tmp_path / "folder")
        )
        for _ in range(3):
            for one, other in zip(next(inside).micro_batches, next(beside).micro_batches, strict=True):
                assert one.pixels.equal(other.pixels) and one.labels.equal(other.labels)


def test_a_hugging_face_data_set_without_the_library_is_refused_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'spot-training\[huggingface-data\]'"):
        open_folder("hf://some/set")
