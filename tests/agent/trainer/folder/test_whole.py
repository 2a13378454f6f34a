"""What is whole in a program's folder: known by who wrote it, where that can be known, and never half a save."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from agent.checkpoint.listing import FolderEntry
from agent.trainer.folder.rules import saves_by_glob, saves_by_rule, step_in
from agent.trainer.folder.said import Said
from agent.trainer.folder.scan import scan_folder
from agent.trainer.folder.whole import Judge, Judged

SAFETENSORS = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'


def archive() -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as file:
        file.writestr("data.pkl", "weights")
    return into.getvalue()


def write(folder: Path, *paths: str, content: bytes = b"x") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def look(folder: Path, pattern: str | None = None, *, written: tuple[str, ...] = (), later_s: float = 10.0) -> Judged:
    """What is there after it has stood still for `later_s`."""
    judge = Judge(folder, Said(folder.parent / "said.json"), pattern)
    entries = scan_folder(folder)
    judge.look(entries, (), now=100.0, wall_ns=max(entry.mtime_ns for entry in entries))
    return judge.look(entries, written, now=100.0 + later_s, wall_ns=0)


def taken(judged: Judged) -> set[str]:
    return {entry.path for entry in judged.take if entry.kind != "folder"}


@pytest.mark.parametrize(
    ("whole", "half"),
    [
        (["checkpoint-5/optimizer.pt", "checkpoint-5/trainer_state.json"], ["checkpoint-9/training_args.bin"]),
        (
            ["checkpoint-5/training_args.bin", "checkpoint-5/trainer_state.json"],
            [f"checkpoint-9/{name}" for name in ("trainer_state.json", "checkpoint-is-incomplete.txt")],
        ),
        (["a/__0_0.distcp", "a/.metadata"], ["b/__0_0.distcp"]),
        (["a/__0_0.distcp", "a/.metadata"], ["b/.metadata.tmp"]),
        (["step_1/optimizer.bin", "step_1/random_states_0.pkl"], ["step_2/optimizer.bin"]),
        (["iter_0000010/model.pt", "latest_checkpointed_iteration.txt"], ["iter_0000020/model.pt"]),
    ],
    ids=["Hugging Face", "Hugging Face, at SIGTERM", "torch DCP", "torch DCP, renaming", "Accelerate", "Megatron-LM"],
)
def test_a_frameworks_last_file_tells_whole_from_half(tmp_path: Path, whole: list[str], half: list[str]) -> None:
    folder = tmp_path / "saves"
    write(folder, *whole, *half)
    tag = folder / "latest_checkpointed_iteration.txt"
    if tag.exists():
        tag.write_text("10")
    assert taken(look(folder)) == set(whole)
    assert all(save.whole is not None for save in saves_by_rule(scan_folder(folder), folder))


def test_a_save_of_nobody_known_is_not_called_half_for_a_file_that_it_never_has(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    write(folder, "checkpoint-5/model.bin", "checkpoint-9/model.bin")
    assert taken(look(folder)) == {"checkpoint-5/model.bin", "checkpoint-9/model.bin"}
    assert look(folder).by_stillness
    assert not look(folder, later_s=0.5).whole


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.pt", archive()), ("model.safetensors", len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + b"1234")],
)
def test_a_file_that_says_where_it_ends_is_torn_at_every_cut(tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "saves"
    write(folder, name, content=content)
    assert taken(look(folder)) == {name}
    for cut in range(9, len(content)):
        write(folder, name, content=content[:cut])
        judged = look(folder)
        assert (judged.whole, list(judged.half)) == (False, [name]), cut


def test_nothing_that_is_open_for_writing_is_whole_but_what_is_written_all_the_time_goes_along(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    write(folder, "step-1/a", "step-2/a", "train.log", "notes")
    judged = look(folder, written=("step-2/a", "train.log", "notes"))
    assert taken(judged) == {"step-1/a", "train.log", "notes"}
    assert judged.carried == {"train.log", "notes"}
    assert judged.step == 1
    assert judged.writing


def test_files_of_one_step_are_one_save(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    write(folder, "model-step10.bin", "optimizer-step10.bin", "model-step20.bin")
    judged = look(folder, written=("optimizer-step10.bin",))
    assert "optimizer-step10.bin" in judged.half
    assert "model-step20.bin" in taken(judged)


def test_a_link_to_half_a_save_and_a_second_name_of_its_file_stay_out(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    write(folder, "a/model", "b/done", "b/model")
    (folder / "latest").symlink_to("a")
    (folder / "b/best").hardlink_to(folder / "a/model")
    assert taken(look(folder, "*/done")) == {"b/done", "b/model"}


def entry(path: str, mtime_ns: int, kind: str = "file") -> FolderEntry:
    return FolderEntry(path, kind, 0o644, 1, mtime_ns)  # type: ignore[arg-type]


def test_a_marker_for_all_must_be_the_newest() -> None:
    files = [entry("model", 5), entry("done", 5), entry("train.log", 9)]
    assert [save.whole for save in saves_by_glob(files, "done")] == [True]
    assert [save.whole for save in saves_by_glob([*files, entry("optimizer", 6)], "done")] == [False]
    assert [save.whole for save in saves_by_glob(files[:1], "done")] == [False]


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoint-120", 120), ("step=120", 120), ("lightning_logs/version_0/checkpoints/epoch=1-step=120.ckpt", 120),
        ("global_step120", 120), ("iter_0000120", 120), ("ckpt-7.pt", 7), ("model.pt", None), ("epoch-3", None),
        ("version_3", None),
    ],
)  # fmt: skip
def test_a_name_tells_its_step_or_none(path: str, step: int | None) -> None:
    assert step_in(path) == step


def test_what_was_said_is_known_to_an_agent_that_comes_later_and_on_the_next_vm(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    write(folder, "step-1/a", "step-2/a")
    said = Said(tmp_path / "said.json")
    said.say("step-1", scan_folder(folder))
    assert taken(look(folder)) == {"step-1/a"}
    other = Said(tmp_path / "other.json")
    other.brought_back(scan_folder(folder), said.state["said"], {})
    assert {save.path: save.whole for save in other.saves(scan_folder(folder))} == {"step-1": True, "step-2": False}
    write(folder, "step-1/b")
    assert not look(folder).whole
