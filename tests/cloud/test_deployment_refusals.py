"""What can be trained here and can't be deployed is refused before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.stacks.deployment import Deployment, NotDeployable
from infra.stacks.machines import load_run

LOCAL = """
run_id: tiny
model: {name: MODEL}
data: {source: SOURCE}
checkpoint: {bucket: gs://my-runs}
cloud: {project: my-project}
"""


def deployment_of(folder: Path, *, model: str, source: str, more: str = "") -> Deployment:
    file = folder / "run.yaml"
    file.write_text(
        LOCAL.replace("MODEL", model).replace("SOURCE", source).replace("my-project}", f"my-project{more}}}")
    )
    return Deployment.of(load_run(file))


@pytest.mark.parametrize(
    ("model", "source", "said"),
    [
        ("aa/bb", "books", "data.source is .*/books, a folder that no VM has"),
        ("./mine", "stdlib", "model.name is .*/mine"),
    ],
)
def test_a_folder_of_this_machine_is_no_place_for_a_vm_to_read(
    model: str, source: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(NotDeployable, match=said):
        deployment_of(tmp_path, model=model, source=source)


@pytest.mark.parametrize("place", ["gs://others/runs", "file:///home/me/runs"])
def test_a_part_of_the_model_starts_from_a_checkpoint_in_the_runs_own_bucket(place: str, tmp_path: Path) -> None:
    with pytest.raises(NotDeployable, match=r"starts from .*/mine@7, and the VMs read no other .*\n    fix: copy"):
        deployment_of(tmp_path, model=f"aa/bb, from: {place}/mine@7", source="stdlib")
    found = deployment_of(tmp_path, model="aa/bb, from: gs://my-runs/lab/mine@7", source="stdlib")
    assert found.starts == ["lab/mine"]


@pytest.mark.parametrize("source", ["stdlib", "gs://my-books/text", "hf://some/set"])
def test_what_a_vm_can_reach_is_deployed(source: str, tmp_path: Path) -> None:
    assert deployment_of(tmp_path, model="aa/bb", source=source).run.run_id == "tiny"


def test_a_workflow_shares_nobody_elses_data(tmp_path: Path) -> None:
    """It may not set that bucket's policy: its deployment would fail half way."""
    trusted = ", github: some/repo"
    with pytest.raises(
        NotDeployable, match=r"gs://my-books.* may not say who reads that\n    fix: write cloud.grant_data"
    ):
        deployment_of(tmp_path, model="aa/bb", source="gs://my-books/text", more=trusted)
    assert deployment_of(tmp_path, model="aa/bb", source="gs://my-runs/text", more=trusted).grants_data
    agreed = deployment_of(tmp_path, model="aa/bb", source="gs://my-books/text", more=f"{trusted}, grant_data: false")
    assert not agreed.grants_data


def test_an_image_of_ones_own_may_hold_the_data(tmp_path: Path) -> None:
    image = ", image: projects/my-project/global/images/family/mine"
    assert deployment_of(tmp_path, model="aa/bb", source="/data/books", more=image).cloud.image


def test_a_start_that_no_group_waits_for_is_refused(tmp_path: Path) -> None:
    """A VM that tokenises for longer would be replaced in the middle of it, and so would the next one."""
    file = tmp_path / "run.yaml"
    waits = "supervision: {{start_timeout: {}, restore_timeout: 30 min}}\n"
    for start, fits in (("70 min", True), ("71 min", False), ("5 h", False)):
        file.write_text(LOCAL.replace("MODEL", "aa/bb").replace("SOURCE", "stdlib") + waits.format(start))
        if fits:
            assert Deployment.of(load_run(file))
        else:
            with pytest.raises(NotDeployable, match=r"to its first step.*\n    fix: write .* of 100 min together"):
                Deployment.of(load_run(file))
