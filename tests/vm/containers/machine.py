"""A VM: a container whose first process is systemd. Power, metadata, processes and journal, seen from outside."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from infra.local.metadata import MetadataServer
from tests.vm.containers.cloud import Cloud
from tests.vm.containers.docker import LABEL, DockerError
from tests.vm.containers.journal import Journal, Line, VmError
from tests.vm.containers.namespace import METADATA_ADDRESS, add_metadata_address, in_network_of

ROOT = Path(__file__).parents[3]
HEALTH_PORT = 9620
_OPTIONS = (
    *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--cgroupns", "private", "--tmpfs", "/run:exec,size=256m", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),
    *("--stop-signal", "RTMIN+3", "--shm-size", "2g", "--add-host", f"metadata.google.internal:{METADATA_ADDRESS}"),
)
POWER_BUTTON = signal.SIGRTMIN + 4  # to systemd: what logind asks it for when the ACPI button is pressed
_LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_KILL_S = 20.0


@dataclass
class Vm:
    """One boot, from an empty disk. `power_on()` once; `close()` at the end, in whatever state it is."""

    cloud: Cloud
    name: str
    number: int
    folder: Path
    attributes: Mapping[str, str]
    image: str
    etc: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    """Where Google's other services are for it: SPOT_..._URL."""

    started_at: float = 0.0
    notice_at: float | None = None
    button_at: float | None = None
    off_at: float | None = None

    def __post_init__(self) -> None:
        self.container = f"{self.cloud.rig}-{self.name}-{self.number}"
        for name in ("etc", "journal"):
            (self.folder / name).mkdir(parents=True)
        os.mkfifo(self.folder / "power")

    def power_on(self) -> None:
        """Start it: network and metadata server first, as on a cloud. Returns when systemd has begun."""
        volumes = [
            *("--volume", f"{self.folder}:/rig", "--volume", f"{self.folder}/journal:/var/log/journal"),
            *("--volume", f"{ROOT}/tests:/opt/spot-tests/tests:ro", *self.cloud.mounts),
        ]
        labels = ["--label", f"{LABEL}={self.cloud.rig}", "--network", self.cloud.network]
        power = Path(__file__).parent / "guest/power.sh"
        docker = self.cloud.docker
        docker(
            *("run", "--detach", "--name", self.container, "--hostname", self.name, *_OPTIONS, *labels, *volumes),
            *("--volume", f"{power}:/usr/local/sbin/power:ro", self.image, "sh", "/usr/local/sbin/power"),
        )
        facts = docker.inspect(self.container)
        self.pid = int(facts["State"]["Pid"])
        self._life = os.pidfd_open(self.pid)
        self._pid_namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        self.address = facts["NetworkSettings"]["Networks"][self.cloud.network]["IPAddress"]
        add_metadata_address(self.pid)
        serve = partial(
            MetadataServer,
            name=self.name,
            attributes=dict(self.attributes),
            mint=self.cloud.mint,
            address=METADATA_ADDRESS,
            port=80,
        )
        self.metadata = in_network_of(self.pid, serve).start()
        environment = {
            "GCE_METADATA_HOST": "metadata.google.internal",
            "STORAGE_EMULATOR_HOST": self.cloud.local.storage.url,
        }
        environment |= self.services
        pairs = " ".join(f"{key}={value}" for key, value in environment.items())
        files = {"systemd/system.conf.d/local-cloud.conf": f"[Manager]\nDefaultEnvironment={pairs}\n", **self.etc}
        for name, text in files.items():
            path = self.folder / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.started_at = time.monotonic()
        with _open_for_reader(self.folder / "power") as power_line:
            os.write(power_line.fileno(), b"on\n")
        self.journal = Journal(self.folder / "journal")

    # --- what a cloud does to it ---

    def give_notice(self) -> float:
        """The metadata server says that it is preempted. Returns the moment, in monotonic seconds."""
        self.notice_at = time.monotonic()
        self.metadata.set("instance/preempted", "TRUE")
        return self.notice_at

    def press_power_button(self) -> float:
        """ACPI G2, past logind: systemd is told to power off. Returns the moment."""
        self.button_at = time.monotonic()
        os.kill(self.pid, POWER_BUTTON)
        return self.button_at

    def power_off_by_logind(self) -> float:
        """ACPI G2 as logind handles it: inhibitors first, PrepareForShutdown, then systemd. Returns the moment."""
        self.button_at = time.monotonic()
        self.run("busctl", "call", *_LOGIND, "PowerOff", "b", "false")
        return self.button_at

    def cut_power(self) -> None:
        """ACPI G3: everything is gone at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._life, signal.SIGKILL)
        if not self.wait_off(_KILL_S):
            raise VmError(f"{self.container} outlived SIGKILL")

    def preempt(self, *, warning_s: float = 0.0, shutdown_s: float = 30.0, logind: bool = False) -> float:
        """Notice, ACPI G2 after `warning_s`, power cut `shutdown_s` later. Returns the seconds from G2 to off."""
        self.give_notice()
        self.wait_off(warning_s)
        pressed = self.power_off_by_logind() if logind else self.press_power_button()
        self.wait_off(shutdown_s - (time.monotonic() - pressed))
        self.cut_power()
        assert self.off_at is not None
        return self.off_at - pressed

    def wait_off(self, timeout: float) -> bool:
        """Wait for its power to be off by itself; False after `timeout` seconds."""
        if self.off_at is None:
            if not select.select([self._life], [], [], max(0.0, timeout))[0]:
                return False
            self.off_at = time.monotonic()
            self.metadata.close()
        return True

    # --- what can be seen of it ---

    def is_running(self) -> bool:
        return not self.wait_off(0.0)

    def is_healthy(self) -> bool:
        """One answer of the health check that a managed instance group makes."""
        return self.health()[0] == HTTPStatus.OK

    def listens_since(self) -> float:
        """Since when its agent surely listens: it has a trainer by then. Infinity while it has none."""
        return min((line.at for line in self.journal.find("trainer_started")), default=float("inf"))

    def kill_trainer(self) -> bool:
        """SIGKILL to the trainer. False where none runs just now."""
        with contextlib.suppress(VmError, ProcessLookupError):
            os.kill(self.trainer(), signal.SIGKILL)
            return True
        return False

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command on the VM, as root; returns its output. Raises VmError."""
        try:
            return self.cloud.docker("exec", self.container, *command, timeout=timeout)
        except DockerError as error:
            raise VmError(f"{error}\n{self.journal.tail()}") from error

    def find_process(self, words: str) -> int | None:
        """The host's number of the VM's oldest process whose command line contains `words`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (
                        words in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        and (entry / "ns/pid").readlink() == self._pid_namespace
                    ):
                        found.append(int(entry.name))
        return min(found) if found else None

    def agent(self) -> int:
        """The agent's process number, on the host."""
        return self._process("toy_agent run") if "toy" in str(self.etc) else self._process("spot-agent run")

    def trainer(self) -> int:
        return self._process("-m tests.promises.toy")

    def file(self, path: str) -> Path:
        """A file of the running VM, seen from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    def wait_in(self, phase: str, step: int, *, timeout: float = 90.0) -> None:
        """Wait until the toy is in its pause (TOY_PAUSE) in `phase` of `step`."""
        marker = self.file(f"/run/spot-agent/in-{phase}-{step}")
        self.wait_for(marker.exists, f"the toy in {phase} of step {step}", timeout=timeout)

    def release(self, phase: str, step: int) -> None:
        """Let the toy go on from that pause."""
        self.file(f"/run/spot-agent/in-{phase}-{step}").write_text("go on")

    def _process(self, words: str) -> int:
        pid = self.find_process(words)
        if pid is None:
            raise VmError(f"no process {words!r} on {self.container}\n{self.journal.tail()}")
        return pid

    def wait(
        self, *events: str, timeout: float = 60.0, since: float = 0.0, where: Callable[[Line], bool] = lambda _: True
    ) -> Line:
        return self.journal.wait(*events, timeout=timeout, since=since, where=where)

    def health(self, path: str = "/healthz") -> tuple[int, str]:
        """What the group's health check gets: status (0: no answer) and text."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{HEALTH_PORT}{path}", timeout=2.0) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError as error:
            return 0, str(error)

    def step(self) -> int:
        """Updates done, as /metrics says."""
        found = re.search(r"^spot_step (\S+)$", self.health("/metrics")[1], re.MULTILINE)
        return int(float(found[1])) if found else 0

    def wait_step(self, step: int, *, timeout: float = 90.0) -> None:
        deadline = time.monotonic() + timeout
        while self.step() < step:
            if time.monotonic() > deadline or self.off_at is not None:
                raise VmError(f"step {step} not reached within {timeout:.0f} s\n{self.journal.tail()}")
            time.sleep(0.03)

    def wait_for(self, seen: Callable[[], Any], what: str, *, timeout: float = 60.0) -> Any:
        """Wait until `seen()` is true; returns what it returned."""
        deadline = time.monotonic() + timeout
        while not (found := seen()):
            if time.monotonic() > deadline:
                raise VmError(f"{what}: not within {timeout:.0f} s\n{self.journal.tail()}")
            time.sleep(0.03)
        return found

    def close(self) -> None:
        """Leave nothing of it behind."""
        if self.started_at:
            with contextlib.suppress(VmError):
                self.cut_power()
            self.journal.close()
            os.close(self._life)
        with contextlib.suppress(DockerError):
            self.cloud.docker("rm", "--force", "--volumes", self.container)


def _open_for_reader(fifo: Path, timeout: float = 20.0) -> Any:
    """Open `fifo` for writing once its reader is there."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return os.fdopen(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0)
        except OSError as error:
            if time.monotonic() > deadline:
                raise VmError(f"nothing waits for power at {fifo}") from error
            time.sleep(0.005)
