"""A transient systemd scope for each trainer: `spot-trainer-ATTEMPT.scope`, in `spot-trainer.slice`.

A trainer in the agent's own control group would be killed with it, would share its weight of the processor, and would
be its leftover in the next start. In a scope it outlives the agent (promise 4), the agent's unit can be
`KillMode=mixed`, and `systemd-cgtop` tells the two apart. At shutdown systemd stops the agent first and the scope after
it: `Before=` on the scope, since units stop in the reverse order.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog
from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError

from agent.vm.systemd import is_under_systemd

SLICE = "spot-trainer.slice"
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_STOP_USEC = 2_000_000  # the agent has stopped its trainer before; what is still there then has had its time
_UNLIMITED = 2**64 - 1
_DEADLINE_S = 3.0
_LOOK_S = 0.005
_TROUBLE = (OSError, EOFError, TimeoutError, DBusError, AuthError)

log = structlog.get_logger()


def own_unit(cgroup: Path = Path("/proc/self/cgroup")) -> str | None:
    """The service this process runs in, such as `spot-agent.service`; None where systemd did not start it as one."""
    if not is_under_systemd():
        return None
    last = cgroup.read_text().strip().rsplit("/", 1)[-1]
    return last if last.endswith(".service") else None


async def move_to_scope(pid: int, *, attempt: int, unit: str, address: str | None = None) -> bool:
    """Move process `pid` into a scope that outlives `unit`. False, with the reason in the journal, if that fails:
    the trainer then goes on in the agent's own control group."""
    scope = f"spot-trainer-{attempt}.scope"
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await _start(scope, pid, unit, address)
            while not _is_in(pid, scope):  # noqa: ASYNC110 - the kernel tells nobody of it
                await asyncio.sleep(_LOOK_S)
    except _TROUBLE as error:
        log.warning(
            "scope_refused",
            scope=scope,
            reason=str(error) or type(error).__name__,
            message=f"systemd gave the trainer no scope of its own: if {unit} dies, its trainer dies too",
        )
        return False
    return True


async def _start(scope: str, pid: int, unit: str, address: str | None) -> None:
    properties: list[tuple[str, Variant]] = [
        ("PIDs", Variant("au", [pid])),
        ("Description", Variant("s", f"Trainer of {unit}")),
        ("Slice", Variant("s", SLICE)),
        ("Before", Variant("as", [unit])),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("TimeoutStopUSec", Variant("t", _STOP_USEC)),
        ("TasksMax", Variant("t", _UNLIMITED)),
    ]
    body: list[Any] = [scope, "fail", [list(entry) for entry in properties], []]
    bus = await MessageBus(address, BusType.SYSTEM).connect()
    try:
        message = Message(
            _NAME, _PATH, f"{_NAME}.Manager", "StartTransientUnit", signature="ssa(sv)a(sa(sv))", body=body
        )
        reply = await bus.call(message)
    finally:
        bus.disconnect()
    if reply is None:
        raise EOFError("the bus hung up")
    if reply.message_type is MessageType.ERROR:
        raise DBusError(reply.error_name or "unknown", " ".join(map(str, reply.body)))


def _is_in(pid: int, scope: str) -> bool:
    """Raises ProcessLookupError or FileNotFoundError, both OSErrors, when the process is gone."""
    return scope in Path(f"/proc/{pid}/cgroup").read_text()
