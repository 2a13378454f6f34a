"""What Compute Engine can give, and what is refused of a run file for lack of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Machine, RunFileError
from infra.stacks.fleet.images import image_of
from infra.stacks.machines import gpus_of, load_run

RUN = """
run_id: tiny
model: {name: Qwen/Qwen3-0.6B}
data: {source: stdlib}
checkpoint: {bucket: gs://runs/tiny}
"""


def test_gpus_are_those_of_the_machine_type() -> None:
    gpus = gpus_of(Machine(type="a2-ultragpu-2g"))
    assert gpus is not None
    assert (gpus.type, gpus.count) == ("nvidia-a100-80gb", 2)
    assert gpus_of(Machine(type="n2-standard-8")) is None


def test_an_image_is_of_the_machines_architecture() -> None:
    assert image_of(Machine(type="c4a-standard-8")).endswith("arm64")
    assert image_of(Machine(type="n2-standard-8")).endswith("amd64")
    assert "nvidia" in image_of(Machine(type="g4-standard-96"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("machine: {type: ct6e-standard-4t}\n", "ct6e-standard-4t has TPUs"),
        ("machine: {type: a4x-highgpu-4g}\n", "there is no machine type a4x-highgpu-4g"),
        ("machine: {type: a9-highgpu-8g}\n", "of no family that was known in"),
        ("machine: {type: n2-standard-8, alternatives: [c4a-standard-8]}\n", "have not the same architecture"),
        ("machine: {type: g2-standard-8, zones: [us-central1-ai1a, us-central1-ai1]}\n",
         "machine.zones[1]: 'us-central1-ai1' is not a zone"),
        ("machine: {type: a2-highgpu-1g}\nstages: [{name: all, steps: 1000, machine: {type: a2-highgpu-3g}}]\n",
         "7: stages[0].machine.type: there is no machine type a2-highgpu-3g"),
        ("ablations: {grid: {machine.type: [g2-standard-8, g2-standard-9], training.seed: [1, 2]}}\n",
         "ablations.grid.machine.type[1]: with machine.type: g2-standard-9, training.seed: 1, machine.type: there is"),
        ("ablations: {grid: {machine.type: [a2-highgpu-8g]}}\n",
         "6: ablations.grid: with machine.type: a2-highgpu-8g, training.global_batch: 32 is not a multiple of 64"),
    ],
)  # fmt: skip
def test_stages_and_experiments_are_held_against_it_too(more: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN + more)
    with pytest.raises(RunFileError) as caught:
        load_run(tmp_path / "run.yaml")
    assert len(caught.value.mistakes) == 1
    assert said in str(caught.value)
