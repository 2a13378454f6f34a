"""A VM with ACPI, power and a metadata server at its real address: QEMU, and what its journal says.

Emulated in software: KVM, where a machine has it, often can't run guests because the machine is a VM itself.
SPOT_QEMU_ACCEL=kvm tries it all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.metadata import MetadataServer
from tests.vm.acpi.image import Image
from tests.vm.acpi.qmp import Qmp, QmpError

METADATA = "169.254.169.254"
STORAGE_PORT = 4443  # as in guest/etc/systemd/system/spot-agent.service.d
_RELAY = Path(__file__).parent / "relay.py"
_START_S, _KILL_S = 30.0, 10.0
# No AVX: QEMU 7.2's emulation of it was new, and now and then a guest's programs fell over.
_ACCEL = {"tcg": ("tcg,thread=multi", "Nehalem"), "kvm": ("kvm", "host")}


class MachineError(Exception):
    """The VM did not do what was waited for in time; the text ends with the last lines of its journal."""


@dataclass(frozen=True)
class Line:
    """One journal entry. `at`: when it arrived here, `guest_at`: when it was written; both monotonic seconds of their
    own clock."""

    at: float
    guest_at: float
    fields: dict[str, Any]

    @property
    def event(self) -> str:
        return str(self.fields.get("EVENT", ""))

    @property
    def text(self) -> str:
        return str(self.fields.get("MESSAGE", ""))


@dataclass
class Machine:
    """One boot of a VM: `boot()` once, then use, then `close()`. Its disk is new: what it writes is gone with it."""

    image: Image
    folder: Path
    metadata: MetadataServer
    storage_port: int
    started: float = 0.0
    off_at: float | None = None
    lines: list[Line] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _process: subprocess.Popen[bytes] | None = None
    _qmp: Qmp | None = None

    def boot(self) -> None:
        self.folder.mkdir()
        reader, writer = os.pipe()
        with (self.folder / "qemu.log").open("wb") as output:
            self._process = subprocess.Popen(
                # Dies with us, whatever happens to us.
                ["setpriv", "--pdeathsig", "KILL", *self._command(writer)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writer], cwd=self.folder,
            )  # fmt: skip
        os.close(writer)
        self.started = time.monotonic()
        threading.Thread(target=self._read_journal, args=(reader,), daemon=True).start()
        self._qmp = Qmp(self.folder / "qmp", timeout=_START_S)

    def press_power_button(self) -> float:
        """ACPI G2, soft-off. Returns the moment."""
        assert self._qmp is not None
        at = time.monotonic()
        self._qmp.call("system_powerdown")
        return at

    def cut_power(self) -> None:
        """ACPI G3."""
        assert self._qmp is not None
        with contextlib.suppress(QmpError):  # it may have gone off by itself just now
            self._qmp.call("quit")
        self.wait_off(_KILL_S)

    def wait_off(self, timeout: float) -> bool:
        """Whether the machine is off within `timeout` seconds; `off_at` is when."""
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self.off_at = self.off_at or time.monotonic()
        return True

    def wait_line(self, what: str, matches: Callable[[Line], bool], *, timeout: float) -> Line:
        """The first journal line that matches. Raises MachineError after `timeout` s, or when the machine is off."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if matches(line):
                        return line
                seen = len(self.lines)
                off = self._process is not None and self._process.poll() is not None
                if not self._changed.wait(min(1.0, max(0.0, deadline - time.monotonic()))) and (
                    off or time.monotonic() > deadline
                ):
                    tail = "\n".join(line.text for line in self.lines[-12:])
                    log = (self.folder / "qemu.log").read_text()[-500:]
                    raise MachineError(
                        f"no {what} {'before it went off' if off else f'in {timeout:.0f} s'}: {log}\n{tail}"
                    )

    def event(self, name: str, *, timeout: float = 0.0) -> Line:
        """The agent's first event of that name."""
        return self.wait_line(f"event {name}", lambda line: line.event == name, timeout=timeout)

    def close(self) -> None:
        if self._qmp:
            self._qmp.close()
        if self._process:
            self._process.kill()
            self._process.wait(_KILL_S)

    def _command(self, journal: int) -> list[str]:
        accel, cpu = _ACCEL[os.environ.get("SPOT_QEMU_ACCEL", "tcg")]
        relay = f"{sys.executable} -S -E {_RELAY}"
        forwards = "".join(
            f",guestfwd=tcp:{METADATA}:{inside}-cmd:{relay} {outside}"
            for inside, outside in ((80, self.metadata.host.rpartition(":")[2]), (STORAGE_PORT, self.storage_port))
        )
        return [
            "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none",
            "-machine", "q35", "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "1G",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs),
            "-append", "root=/dev/vda rw console=ttyS0 quiet",
            "-drive", f"file={self.image.disk},format=raw,if=virtio,snapshot=on",
            "-serial", "file:console", "-qmp", "unix:qmp,server=on,wait=off",
            "-smbios", "type=1,manufacturer=Google,product=Google Compute Engine",
            "-device", "virtio-serial",
            "-add-fd", f"fd={journal},set=1",
            "-chardev", "file,id=journal,path=/dev/fdset/1,append=on",
            "-device", "virtserialport,chardev=journal,name=journal",
            # An own network, from which nothing but these two servers can be reached.
            "-netdev", "user,id=net,net=169.254.0.0/16,host=169.254.100.2,dns=169.254.100.3,"
            f"dhcpstart=169.254.100.15,restrict=on{forwards}",
            "-device", "virtio-net-pci,netdev=net",
        ]  # fmt: skip

    def _read_journal(self, reader: int) -> None:
        with open(reader, "rb") as stream, (self.folder / "journal").open("wb") as copy:
            for raw in stream:
                copy.write(raw)
                copy.flush()
                try:
                    fields = json.loads(raw)
                    line = Line(time.monotonic(), int(fields["__MONOTONIC_TIMESTAMP"]) / 1e6, fields)
                except (ValueError, KeyError):
                    continue  # the power went in the middle of it
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
