"""Baking an image: in the run's subnet, tried before anybody boots from it, and gone on with where it was cut off."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.cloud.examples import REPOSITORY

BUILD = REPOSITORY / "infra/stacks/fleet/image/build.sh"
DIGEST = "ab" * 32
SUBNET, ACCOUNT = "projects/p/regions/r/subnetworks/s", "spot-run@p.iam.gserviceaccount.com"

GCLOUD = """#!/bin/sh
# VMs and images are files here.
shift 2
echo "$*" >> "$THERE/../calls"
case "$*" in
  *"describe"*"value(status)"*) echo TERMINATED ;;
  *describe*) [ -e "$THERE/$4" ] ;;
  "compute instances create"*|"compute images create"*) [ "$4" = "$CUT_OFF_AT" ] && exit 9; touch "$THERE/$4" ;;
  *get-guest-attributes*) echo "$SAID" ;;
  *"instances delete"*) rm "$THERE/$4" ;;
esac
"""


def build(folder: Path, *, cut_off_at: str = "", said: str = DIGEST) -> subprocess.CompletedProcess[str]:
    program = folder / "bin/gcloud"
    program.parent.mkdir(exist_ok=True)
    program.write_text(GCLOUD)
    program.chmod(0o755)
    (folder / "there").mkdir(exist_ok=True)
    (folder / "calls").unlink(missing_ok=True)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "THERE": str(folder / "there"), "SPOT_POLL_S": "0"}
    command = [str(BUILD), "p", "r-a", f"gs://b/packages/{DIGEST}.tar.gz", "ubuntu-os-cloud/ubuntu", SUBNET, ACCOUNT]
    env |= {"CUT_OFF_AT": cut_off_at, "SAID": said}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_an_image_is_made_in_the_runs_network_and_has_its_family_only_when_it_was_tried(tmp_path: Path) -> None:
    image = f"spot-training-{DIGEST[:12]}"
    assert build(tmp_path, cut_off_at=f"try-{image}").returncode == 9
    made = (tmp_path / "calls").read_text()
    assert f"--subnet={SUBNET} --no-address --service-account={ACCOUNT}" in made
    assert "family=spot-training" not in made.replace("image-family", "")
    done = build(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"projects/p/global/images/{image}\n"), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if "create bake-" in call or "images create" in call] == [], (
        "it goes on where it was"
    )
    assert calls[-1] == f"compute images update {image} --family=spot-training"
    assert [path.name for path in (tmp_path / "there").iterdir()] == [image]


def test_an_image_that_lacks_something_gets_no_family(tmp_path: Path) -> None:
    done = build(tmp_path, said="lacking")
    assert done.returncode == 1
    assert "has not the bundle" in done.stderr
