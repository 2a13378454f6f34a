"""The session's rig: a Docker daemon, a network, the local cloud, images; all gone at the end, however that comes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.local.cloud import local_cloud
from infra.stacks.packages.bundle import upload
from tests.vm.containers import images, pytorch
from tests.vm.containers.checks import check
from tests.vm.containers.cloud import BUCKET, PREFIX, RUNS, Cloud
from tests.vm.containers.docker import LABEL, Docker
from tests.vm.containers.group import Group

ROOT = Path(__file__).parents[3]
_OTHER_RIG_S = 1200.0
_PROGRAMS = ("journalctl", "nsenter", "ip", "tar")


@pytest.fixture(scope="session")
def docker(rig: str) -> Iterator[Docker]:
    """A daemon, by a keeper that outlives us by what it takes to clean up."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("VMs as containers need Linux and root")
    if missing := [name for name in _PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"VMs as containers need {', '.join(missing)}")

    def stop(number: int, _: object) -> None:
        pytest.exit(f"signal {number}", returncode=128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.vm.containers.keeper", rig],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        if not select.select([keeper.stdout], [], [], _OTHER_RIG_S)[0]:
            pytest.skip("another rig has had this machine for 20 min")
        word, _, text = keeper.stdout.readline().decode().strip().partition(" ")
        if word != "ready":
            pytest.skip(text or "the keeper of the Docker daemon ended")
        yield Docker(text)
    finally:
        keeper.stdin.close()
        keeper.wait(90.0)
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def rig() -> str:
    return f"spot-vm-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def cloud(docker: Docker, rig: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    try:
        mounts = pytorch.mounts(tmp_path_factory.mktemp("image"))
    except RuntimeError as error:
        pytest.skip(str(error))
    bundle = images.bundle()
    base = images.base_image(docker)
    warm, _ = images.warm_image(docker, base, bundle, mounts, rig)
    docker("network", "create", "--label", f"{LABEL}={rig}", rig)
    gateway = str(docker.inspect(rig)["IPAM"]["Config"][0]["Gateway"])
    with local_cloud(BUCKET, [f"{PREFIX}/{run}" for run in RUNS], address=gateway) as local:
        url = upload(bundle, f"gs://{BUCKET}")
        yield Cloud(docker, rig, rig, local, base, warm, url, bundle, mounts)


@pytest.fixture
def toy(cloud: Cloud, tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """Makes the group of a run of the toy; at the test's end it is checked and taken away."""
    yield from _made(partial(Group.of_toy, cloud, tmp_path), cloud)


@pytest.fixture
def program(cloud: Cloud, tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """The same of a program that knows nothing of us."""
    yield from _made(partial(Group.of_program, cloud, tmp_path), cloud)


@pytest.fixture
def own_code(cloud: Cloud, tmp_path: Path) -> Iterator[Callable[..., Group]]:
    """The same of a script that comes with its code, requirements and setup."""
    yield from _made(partial(Group.of_own_code, cloud, tmp_path), cloud)


def _made(make: Callable[..., Group], cloud: Cloud) -> Iterator[Callable[..., Group]]:
    groups: list[Group] = []

    def made(**options: Any) -> Group:
        groups.append(make(**options))
        return groups[-1]

    try:
        yield made
        cloud.local.storage.clear()
        for group in groups:
            check(group)
    finally:
        cloud.local.storage.clear()
        for group in groups:
            group.close()


@pytest.fixture(scope="session")
def reference(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The uninterrupted run's outcome."""
    with Group.of_toy(cloud, tmp_path_factory.mktemp("reference")) as group:
        group.boot()
        return group.finish()
