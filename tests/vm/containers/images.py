"""The VMs' images: Debian with systemd and Google's guest agent, and the same with our bundle installed ("warm").

Each is named after a digest of what it is made of, so it is made once and made anew when that changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from infra.stacks.packages.bundle import ROOT, build
from tests.vm.containers.docker import LABEL, Docker, DockerError, cache_folder

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "libpam-systemd",
    "python3",
    "python3-venv",
    "ca-certificates",
    "curl",
    "procps",
    "iproute2",
    "google-guest-agent",
    "libfaketime",
)
SUITE = "bookworm"
# No keys and no login on a container; networkd would fight docker for the interface.
_TUNE = """
systemctl mask systemd-networkd.service systemd-resolved.service systemd-timesyncd.service getty.target \
  console-getty.service
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /etc/machine-id && touch /etc/machine-id
"""
_BUILD_S = 900.0
_KEPT_BUNDLES = 3


def base_image(docker: Docker) -> str:
    """Debian with systemd: from the registry's image where it can be reached, else by debootstrap."""
    key = hashlib.sha256(repr((PACKAGES, SUITE, _TUNE, 1)).encode()).hexdigest()[:12]
    name = f"spot-vm-base:{key}"
    if docker.has_image(name):
        return name
    try:
        docker("pull", "--quiet", f"debian:{SUITE}", timeout=300.0)
    except DockerError:
        _debootstrap(docker, name)
    else:
        _dockerfile(docker, name)
    return name


def _dockerfile(docker: Docker, name: str) -> None:
    recipe = "\n".join(
        [
            f"FROM debian:{SUITE}",
            "ENV container=docker",
            "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
            + " ".join(PACKAGES),
            "RUN " + " && ".join(line for line in _TUNE.replace("\\\n", "").strip().splitlines()),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(recipe)
        docker("build", "--network", "host", "--tag", name, folder, timeout=_BUILD_S)


def _debootstrap(docker: Docker, name: str) -> None:
    program = shutil.which("debootstrap") or "/usr/sbin/debootstrap"
    if not Path(program).exists():
        raise DockerError("neither a registry nor debootstrap is there to make an image: apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="spot-vm-tree-", dir=cache_folder()) as folder:
        tree = Path(folder, "tree")
        include = "--include=" + ",".join(PACKAGES)
        # In mount and process namespaces of its own: it mounts the host's /proc in the tree, and interrupted it would
        # leave it there, under a folder that is about to be removed.
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        _run([*alone, program, "--variant=minbase", include, SUITE, str(tree)])
        _run(["chroot", str(tree), "sh", "-ec", _TUNE])
        tar = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
        try:
            docker("import", "--change", "ENV container=docker", "-", name, stdin=tar.stdout, timeout=_BUILD_S)
        finally:
            tar.wait(60.0)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise DockerError(f"{' '.join(command)}: status {done.returncode}\n{last}")


def bundle() -> Path:
    """The bundle of this tree's sources with its wheelhouse; made once for the same sources."""
    folder = cache_folder() / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    sources = [ROOT / name for name in ("pyproject.toml", "requirements.lock", "pytorch.txt", "README.md", "LICENSE")]
    for name in ("agent", "infra", "workloads", "systemd"):
        sources += [path for path in sorted((ROOT / name).rglob("*")) if "__pycache__" not in path.parts]
    for path in sources:
        if path.is_file():
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    note = folder / f"{digest.hexdigest()[:16]}.json"
    if not note.exists():
        made = build(folder, wheelhouse=True, agent_only=True)
        note.write_text(json.dumps(made.name))
        notes = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in notes[_KEPT_BUNDLES:]:
            old.unlink()
        kept = {json.loads(path.read_text()) for path in notes[:_KEPT_BUNDLES]}
        for file in folder.glob("*.tar.gz"):
            if file.name not in kept:
                file.unlink()
    os.utime(note)
    return folder / str(json.loads(note.read_text()))


def warm_image(docker: Docker, base: str, bundle_file: Path, mounts: list[str], rig: str) -> tuple[str, float]:
    """`base` with the bundle installed, as an image recipe would, and how many seconds that took (0: it was there)."""
    digest = bundle_file.name.removesuffix(".tar.gz")
    name = f"spot-vm:{base.split(':')[1]}-{digest[:16]}"
    if docker.has_image(name):
        return name, 0.0
    begun = time.monotonic()
    container = f"{rig}-install"
    with tempfile.TemporaryDirectory(prefix="spot-vm-bundle-") as folder:
        with tarfile.open(bundle_file) as tar:
            tar.extractall(folder, filter="data")
        script = (
            "/bundle/install.sh --no-enable --system-site-packages --python /usr/bin/python3 /bundle"
            f" && echo {digest} > /opt/spot-training/bundle"
        )
        volumes = ["--volume", f"{folder}:/bundle:ro", *mounts]
        options = ["--name", container, "--label", f"{LABEL}={rig}", "--network", "none", *volumes]
        docker("run", *options, base, "sh", "-ec", script, timeout=_BUILD_S)
    for old in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "spot-vm").split():
        docker("rmi", old)
    docker("commit", container, name)
    docker("rm", container)
    return name, time.monotonic() - begun
