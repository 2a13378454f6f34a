"""A VM's way up: the startup script, run for real against the local cloud."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local.cloud import VM_IDENTITY, local_cloud
from infra.local.metadata import MetadataServer
from infra.local.secret_manager import SecretManager
from infra.stacks.packages.bundle import pack
from tests.systemd.machine import Machine, machine

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra/stacks/fleet/runtime/startup.sh"
SECRET = "projects/p/secrets/wandb/versions/latest"
KEY = "0123456789abcdef-secret"
RUN = "run_id: demo\n# with ${PATH}, $(date), 'quotes' and \\ in it\n"


class Vm:
    """A machine whose metadata, bucket and secrets are the local cloud's."""

    def __init__(self, inside: Machine, metadata: MetadataServer, secrets: SecretManager) -> None:
        self.inside, self.metadata, self.secrets = inside, metadata, secrets

    def boot(self, **attributes: str) -> subprocess.CompletedProcess[str]:
        """Run the startup script; `spot_run` is metadata `spot-run`."""
        for key, value in attributes.items():
            self.metadata.set(f"instance/attributes/{key.replace('_', '-')}", value)
        return self.inside.run("bash", "-c", SCRIPT.read_text(), timeout=300.0)

    @contextmanager
    def disk(self, name: str = "google-local-nvme-ssd-0", *, size: int = 64 << 20) -> Iterator[str]:
        """A local SSD of the machine."""
        image = self.inside.shared / uuid.uuid4().hex
        with image.open("wb") as file:
            file.truncate(size)
        made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no loop devices here: {made.stderr.strip()}")
        device = made.stdout.strip()
        try:
            (self.inside.shared / "by-id").mkdir(exist_ok=True)
            (self.inside.shared / "by-id" / name).symlink_to(device)
            yield device
        finally:
            self.inside.run("umount", "/mnt/scratch")
            subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    tokens: dict[str, str] = {}
    with local_cloud("packages-bucket", []) as cloud, machine(tmp_path) as inside:

        def mint(identity: str, lifetime_s: float) -> str:
            token = cloud.mint(identity, lifetime_s)
            tokens[token] = identity
            return token

        with (
            SecretManager(identify=tokens.get) as secrets,
            MetadataServer(service_account=VM_IDENTITY, mint=mint) as metadata,
        ):
            inside.env |= {
                "GCE_METADATA_HOST": metadata.host,
                "STORAGE_EMULATOR_HOST": cloud.storage.url,
                "SPOT_SECRETS_URL": secrets.url,
                "SPOT_DISK_DIR": str(tmp_path / "by-id"),
            }
            yield Vm(inside, metadata, secrets)


def stages(booted: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Stage -> outcome, out of what the script said."""
    said = [line.split() for line in booted.stderr.splitlines() if line.startswith("spot-startup: boot_stage ")]
    return {line[2].rstrip(":"): line[3] for line in said}


def as_operator(*arguments: str) -> str:
    """A Python of the operator's, whose credentials `local_cloud` sets; google-auth finds them once a process."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_packages(operation: str) -> None:
    as_operator("-c", f"from agent.store import open_store; open_store('gs://packages-bucket/packages').{operation}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's, with all wheels in it."""
    out = str(tmp_path_factory.mktemp("bundle"))
    return Path(as_operator("-m", "infra.stacks.packages.bundle", "build", out, "--wheelhouse", "--agent-only"))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_new_vm_installs_the_bundle_by_its_digest_and_a_second_boot_changes_nothing(vm: Vm, bundle: Path) -> None:
    address = as_operator("-m", "infra.stacks.packages.bundle", "upload", str(bundle), "gs://packages-bucket")
    first = vm.boot(spot_run=RUN, spot_bundle=address)
    assert first.returncode == 0, first.stderr
    assert set(stages(first).values()) == {"ok"}, first.stderr
    assert vm.inside.read("/etc/spot-training/run.yaml") == RUN
    helped = vm.inside.run("/opt/spot-training/venv/bin/spot-agent", "--help")
    assert helped.returncode == 0, helped.stderr
    assert vm.inside.run("systemctl", "is-enabled", "apt-daily.timer").stdout.strip() == "masked"
    assert vm.inside.run("systemctl", "is-enabled", "spot-agent").stdout.strip() == "disabled"

    in_packages(f"delete({bundle.name!r}, timeout=10.0)")
    second = vm.boot()
    assert second.returncode == 0, "an image that has the bundle needs no bucket"
    assert set(stages(second).values()) == {"ok"}


def with_a_pytorch(bundle: Path, out: Path) -> Path:
    """The bundle with the trainers' part in it, small: no other requirements, and a PyTorch of a few bytes."""
    content = out / "content"
    with tarfile.open(bundle) as tar:
        tar.extractall(content, filter="data")
    (content / "requirements-workloads.txt").write_text("# none\n")
    shutil.copyfile(ROOT / "pytorch.txt", content / "pytorch.txt")
    version = (content / "pytorch.txt").read_text().strip().removeprefix("torch==")
    about = f"torch-{version}.dist-info"
    with zipfile.ZipFile(content / "wheelhouse" / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    packed = pack(content)
    file = out / f"{hashlib.sha256(packed).hexdigest()}.tar.gz"
    file.write_bytes(packed)
    return file


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workload", ["llm", "command"])
def test_an_image_without_pytorch_gets_it_for_our_trainers_and_not_for_a_program_of_the_users_own(
    vm: Vm, bundle: Path, tmp_path: Path, workload: str
) -> None:
    larger = with_a_pytorch(bundle, tmp_path / "with")
    address = as_operator("-m", "infra.stacks.packages.bundle", "upload", str(larger), "gs://packages-bucket")
    vm.inside.env["PIP_NO_INDEX"] = "1"
    # Ubuntu's image: its Python makes no virtual environments.
    versions = vm.inside.run("dpkg-query", "--show", "--showformat=${Package} ", "python3*-venv").stdout.split()
    gone = vm.inside.run("apt-get", "-qq", "-y", "purge", *versions, timeout=120.0) if versions else None
    assert gone is None or gone.returncode == 0, gone.stderr
    booted = vm.boot(spot_run=RUN, spot_bundle=address, spot_workload=workload)
    assert booted.returncode == 0, booted.stderr
    torch = vm.inside.run("/opt/spot-training/venv/bin/python", "-c", "import torch; print(torch.__version__)")
    wanted = (ROOT / "pytorch.txt").read_text().strip().removeprefix("torch==")
    assert torch.stdout.strip() == (wanted if workload == "llm" else "")


def test_a_bundle_that_is_not_what_its_name_says_is_not_installed(vm: Vm) -> None:
    digest = hashlib.sha256(b"the bundle").hexdigest()
    in_packages(f"create('{digest}.tar.gz', b'another', timeout=10.0)")
    booted = vm.boot(spot_run=RUN, spot_bundle=f"gs://packages-bucket/packages/{digest}.tar.gz")
    assert booted.returncode == 3
    assert f"bundle_refused what the bucket gave is not {digest}" in booted.stderr
    assert stages(booted)["bundle"] == "failed"
    assert not vm.inside.exists("/opt/spot-training/venv")


@pytest.mark.parametrize("address", ["gs://packages-bucket/packages/latest.tar.gz", "https://elsewhere/a.tar.gz"])
def test_a_bundle_without_a_digest_is_refused(vm: Vm, address: str) -> None:
    booted = vm.boot(spot_run=RUN, spot_bundle=address)
    assert booted.returncode == 3
    assert "bundle_refused" in booted.stderr


def test_a_vm_without_a_run_file_says_so(vm: Vm) -> None:
    booted = vm.boot()
    assert booted.returncode == 3
    assert "boot_failed run_file failed STAGE=run_file" in booted.stderr


def test_a_metadata_server_that_is_away_for_a_moment_is_asked_again(vm: Vm) -> None:
    vm.metadata.fail_for(1.0)
    assert stages(vm.boot(spot_run=RUN, spot_bundle="none", spot_stages="first,second"))["run_file"] == "ok"
    assert vm.inside.read("/run/spot-training/stages.env") == "SPOT_STAGES=first,second\n", "for the agent's unit"


def test_an_empty_local_ssd_becomes_the_scratch_disk_and_stays_it(vm: Vm) -> None:
    with vm.disk():
        assert stages(vm.boot(spot_run=RUN, spot_bundle="none"))["scratch"] == "ok"
        assert vm.inside.run("mountpoint", "/mnt/scratch").returncode == 0
        vm.inside.run("touch", "/mnt/scratch/kept")
        vm.inside.run("umount", "/mnt/scratch")  # a reboot keeps what local SSDs hold
        assert stages(vm.boot())["scratch"] == "ok"
        assert vm.inside.exists("/mnt/scratch/kept")


def test_a_disk_that_holds_something_is_never_formatted(vm: Vm) -> None:
    with vm.disk() as device:
        subprocess.run(["mkfs.ext4", "-q", "-L", "precious", device], check=True)
        booted = vm.boot(spot_run=RUN, spot_bundle="none")
        assert stages(booted)["scratch"] == "failed"
        assert "disk_left_alone" in booted.stderr
        label = subprocess.run(["wipefs", "-n", "-O", "LABEL", device], capture_output=True, text=True, check=True)
        assert "precious" in label.stdout


def test_a_disk_that_is_not_named_as_a_local_ssd_is_never_looked_at(vm: Vm) -> None:
    with vm.disk("google-persistent-disk-1") as device:
        assert stages(vm.boot(spot_run=RUN, spot_bundle="none"))["scratch"] == "ok"
        assert not subprocess.run(["wipefs", "-n", device], capture_output=True, check=True).stdout
        assert vm.inside.run("mountpoint", "/mnt/scratch").returncode != 0


def test_a_secret_that_may_not_be_read_is_gone_without(vm: Vm) -> None:
    vm.secrets.put(SECRET, KEY.encode(), readers={"somebody@else"})
    booted = vm.boot(spot_run=RUN, spot_wandb_secret=SECRET, spot_bundle="none")
    assert stages(booted)["secret"] == "failed"
    assert not vm.inside.exists("/run/spot-training/secrets.env")


def test_a_secret_is_kept_in_memory_for_root_alone_and_never_told(vm: Vm) -> None:
    vm.secrets.put(SECRET, KEY.encode(), readers={VM_IDENTITY})
    booted = vm.boot(spot_run=RUN, spot_wandb_secret=SECRET, spot_bundle="none")
    assert stages(booted)["secret"] == "ok"
    assert vm.inside.read("/run/spot-training/secrets.env") == f"WANDB_API_KEY={KEY}\n"
    assert vm.inside.run("stat", "-c", "%a %U", "/run/spot-training/secrets.env").stdout == "600 root\n"
    assert not vm.inside.exists("/run/spot-training/authorization")
    assert KEY not in booted.stdout + booted.stderr
