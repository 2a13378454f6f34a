"""The bucket's lifecycle: what each rule can match and what it can't, and that none can delete a live checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.checkpoint.bucket import MILESTONE as MILESTONE_REASON
from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import Manifest, Part, RankParts
from agent.config.causes import Cause
from agent.store import open_store
from agent.store.names import MILESTONE_PART, ROLLING
from infra.proof.lifecycle import Described, actions
from infra.stacks.deployment import NotDeployable
from tests.cloud.grants import ALPHA, BETA, Json, deployment, synthesize_grants

RUN = "team/alpha"
ROLLING_PART = f"{RUN}/rolling/000000000042-00003/part-00000.bin"
MILESTONE_PART_NAME = f"{RUN}/milestones/000000000040-00003/rank-00000-part-00000{MILESTONE_PART}"
RECORD = f"{RUN}/events/20261124T120000.000000Z-00003-incident-crash.json"

NEARLINE, COLDLINE = "SetStorageClass NEARLINE", "SetStorageClass COLDLINE"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    out = tmp_path_factory.mktemp("lifecycle")
    stacks = synthesize_grants(out, alpha=deployment(ALPHA), beta=deployment(BETA))
    (bucket,) = stacks["foundation"]["resource"]["google_storage_bucket"].values()
    written: list[Json] = bucket["lifecycle_rule"]
    return written


UPLOAD = Described(name=ROLLING_PART, age=7, unfinished_upload=True)
MILESTONE = Described(name=MILESTONE_PART_NAME, age=30)
OLD_MILESTONE = replace(MILESTONE, age=120, storage_class="NEARLINE")
GONE = Described(name=f"expired/{ROLLING_PART}", custom_time=30)
OLD_RECORD = Described(name=RECORD, age=400, size=2000)

CASES = {
    "an upload that was given up is aborted": (UPLOAD, {"AbortIncompleteMultipartUpload"}),
    "an upload of this week goes on": (replace(UPLOAD, age=6), set()),
    "an object is no upload": (replace(UPLOAD, unfinished_upload=False), set()),
    "a milestone of a month goes to Nearline": (MILESTONE, {NEARLINE}),
    "a younger one does not": (replace(MILESTONE, age=29), set()),
    "nor one that is there": (replace(MILESTONE, storage_class="NEARLINE"), set()),
    "nor what is rolling": (replace(MILESTONE, name=ROLLING_PART), set()),
    "nor a result": (replace(MILESTONE, name=f"{RUN}/results/00001/model.safetensors"), set()),
    "a milestone of four months goes to Coldline": (OLD_MILESTONE, {COLDLINE}),
    "not before its month in Nearline is over": (replace(OLD_MILESTONE, age=119), set()),
    "and stays there for good": (replace(OLD_MILESTONE, age=5000, storage_class="COLDLINE"), set()),
    "what was moved to expired/ and marked is deleted": (GONE, {"Delete"}),
    "not within a month of its mark": (replace(GONE, custom_time=29), set()),
    "not without the mark": (replace(GONE, custom_time=None, age=5000), set()),
    "not elsewhere, with the mark": (replace(GONE, name=ROLLING_PART), set()),
    "not in a folder of that name further down": (replace(GONE, name=f"team/{GONE.name}"), set()),
    "a record of last year is deleted": (OLD_RECORD, {"Delete"}),
    "a younger one is not": (replace(OLD_RECORD, age=399), set()),
    "nor a result of such a name": (
        replace(OLD_RECORD, name=f"{RUN}/results/00001/my-incident-crash.json", size=1 << 20),
        set(),
    ),
    "nor the mark that a run is complete": (replace(OLD_RECORD, name=f"{RUN}/line/999999990.json"), set()),
    "nor the claim of an attempt": (replace(OLD_RECORD, name=f"{RUN}/line/999999998.json"), set()),
    "nor metrics": (replace(OLD_RECORD, name=f"{RUN}/metrics/00003-000000000040.jsonl"), set()),
    "nor a package": (replace(OLD_RECORD, name=f"packages/{'0' * 64}.tar.gz"), set()),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rule(rules: list[Json], case: str) -> None:
    described, expected = CASES[case]
    assert actions(rules, described) == expected


@pytest.mark.parametrize("kind", [*(f"incident-{kind}" for kind in get_args(Cause)), "resume"])
def test_records_of_every_kind_go_in_the_end(rules: list[Json], kind: str) -> None:
    record = replace(OLD_RECORD, name=f"{RUN}/events/20261124T120000.000000Z-00003-{kind}.json")
    assert actions(rules, record) == {"Delete"}


def test_every_rule_is_matched_by_one_of_the_cases(rules: list[Json]) -> None:
    matched = [any(actions([rule], described) for described, _ in CASES.values()) for rule in rules]
    assert matched == [True] * 5


segment = st.one_of(
    st.sampled_from(
        ["expired", "packages", "rolling", "milestones", "events", "x-resume.json", "a-incident-crash.json"]
    ),
    st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True),
)
folders = st.lists(segment, max_size=4).map("/".join)
run_ids = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
checkpoints = st.builds("{:012d}-{:05d}".format, st.integers(0, 10**12 - 1), st.integers(0, 10**5 - 1))
number = st.integers(0, 99999)
leaves = st.one_of(
    st.just("manifest.json"),
    number.map("part-{:05d}.bin".format),
    st.builds(f"rank-{{:05d}}-part-{{:05d}}{MILESTONE_PART}".format, number, number),
)
days = st.integers(0, 20000)


@settings(deadline=None)  # a busy machine may take its time
@given(
    folder=folders,
    run_id=run_ids,
    area=st.sampled_from(["rolling", "milestones"]),
    checkpoint=checkpoints,
    leaf=leaves,
    rest=st.builds(
        Described,
        name=st.just(""),
        age=days,
        storage_class=st.sampled_from(["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"]),
        size=st.integers(0, 1 << 40),
        custom_time=st.none() | days,
        noncurrent=st.none() | days,
    ),
)
def test_no_rule_deletes_a_live_checkpoint(
    *, rules: list[Json], folder: str, run_id: str, area: str, checkpoint: str, leaf: str, rest: Described
) -> None:
    try:
        prefix = deployment(ALPHA, bucket=f"gs://some-runs/{folder}", run_id=run_id).prefix
    except NotDeployable:
        return  # such a run can't be deployed: its objects would be where something else's are
    name = f"{prefix}/{area}/{checkpoint}/{leaf}"
    assert "Delete" not in actions(rules, replace(rest, name=name))


@pytest.mark.parametrize("bucket", ["gs://some-runs/expired", "gs://some-runs/expired/2026", "gs://some-runs/packages"])
def test_no_run_can_be_where_objects_are_deleted(bucket: str) -> None:
    with pytest.raises(NotDeployable, match="objects go"):
        deployment(ALPHA, bucket=bucket)


def test_a_condition_that_is_not_understood_is_refused() -> None:
    rule = {"action": {"type": "Delete"}, "condition": {"created_before": "2026-01-01"}}
    with pytest.raises(NotDeployable, match="created_before is not understood"):
        actions([rule], MILESTONE)


def test_the_agent_names_milestones_as_the_rules_expect(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    part = store.create(f"{ROLLING}000000000042-00003/part-00000.bin", b"state", timeout=5)
    manifest = Manifest(
        run_id="alpha",
        step=42,
        attempt=3,
        reason=MILESTONE_REASON,
        created="2026-11-24T12:00:00+00:00",
        layout="safetensors",
        world_size=1,
        ranks=[RankParts(rank=0, size=5, parts=[Part(name=part.name, offset=0, size=5, crc32c=part.crc32c)])],
        state={},
    )
    kept = Checkpoints(store, "alpha").keep_as_milestone(manifest, timeout=5)
    names = [stored.name for stored in store.list(f"{kept.folder}/", timeout=5)]
    assert sorted(name.rpartition("/")[2] for name in names) == [
        "manifest.json",
        f"rank-00000-part-00000{MILESTONE_PART}",
    ]
