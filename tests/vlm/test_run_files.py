"""The run files of this trainer: usable, and refused where they ask for what it can't use."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load_run
from agent.config.legs import legs_of
from infra.operate.unread import unread

HERE = Path(__file__).parents[2] / "workloads/vlm"


@pytest.mark.parametrize("name", ["run.yaml", "production.yaml"])
def test_each_can_be_used_as_it_is(name: str) -> None:
    run = load_run(HERE / name)
    assert list(unread(run)) == []
    assert [stage.name for stage in run.stages] == ["stage1_projection", "stage2_full_finetune", "stage3_final_polish"]


def test_the_founding_documents_four_gpus_are_refused_in_clear_words(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text((HERE / "production.yaml").read_text().replace("a2-ultragpu-1g", "a2-highgpu-4g"))
    (refusal,) = unread(load_run(file))
    assert refusal.where == ("machine", "type")
    assert refusal.reason == "the vlm trainer uses one GPU, and a2-highgpu-4g has 4, which are all paid for"


def test_the_last_stage_is_handed_over_to_a_machine_that_nobody_takes_away() -> None:
    first, last = legs_of(load_run(HERE / "production.yaml"))
    assert (len(first.stages), first.end, last.end) == (2, 4500, 5000)
