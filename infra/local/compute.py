"""A local stand-in for Compute Engine's managed instance groups: get, resize, recreateInstances, listManagedInstances,
listErrors, over HTTP, with bearer tokens and permissions.

    with ComputeServer(identify=tokens.get) as compute:
        group = compute.add_group("projects/p/zones/z/instanceGroupManagers/g", target_size=1)
        compute.allow("vm@p.iam", "compute.instanceGroupManagers.update", group.path)

It keeps what is wanted and what is seen; making VMs of it is a controller's business, which waits for changes with
`wait_for` and writes instances and errors. Not modelled: operations that can be asked for later, lists of more than one
page, policies, other methods.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from infra.local.json_server import JsonServer, Refused

PREFIX = "/compute/v1/"
READ, UPDATE = "compute.instanceGroupManagers.get", "compute.instanceGroupManagers.update"
_ACTIONS = ("NONE", "CREATING", "RECREATING", "DELETING", "RESTARTING", "VERIFYING")

Identify = Callable[[str], str | None]
"""Access token -> the identity that it speaks for, None for a token that is unknown or has expired."""


@dataclass
class ManagedInstance:
    """One VM of a group, as `listManagedInstances` shows it."""

    name: str
    status: str | None = None
    """`instanceStatus`: PROVISIONING, STAGING, RUNNING, STOPPING, TERMINATED; None before there is a VM."""
    action: str = "CREATING"
    """`currentAction`: what the group is doing with it."""
    errors: list[dict[str, str]] = field(default_factory=list)
    """`lastAttempt.errors`: why it is not there, each with code and message."""


@dataclass
class InstanceGroup:
    """A managed instance group: what is wanted of it, and what there is."""

    path: str
    base_name: str
    target_size: int
    instances: dict[str, ManagedInstance] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Newest first, as `listErrors` shows them."""
    recreate: list[str] = field(default_factory=list)
    """Names that `recreateInstances` asked for; a controller takes them out."""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def place(self) -> str:
        return self.path.split("/instanceGroupManagers/", 1)[0]


class ComputeServer(JsonServer):
    """Serves on `address` until the block ends; its `url` is what SPOT_COMPUTE_URL should be. Thread-safe."""

    def __init__(self, *, identify: Identify, address: str = "127.0.0.1", port: int = 0) -> None:
        self.groups: dict[str, InstanceGroup] = {}
        self.requests: list[tuple[str, str, str]] = []
        """Who asked what: identity, method, path with query. A refused token's identity is empty."""
        self._identify = identify
        self._allowed: set[tuple[str, str, str]] = set()
        self._failures: list[HTTPStatus] = []
        self._operations: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        super().__init__(address=address, port=port)

    def add_group(self, path: str, *, target_size: int, base_name: str | None = None) -> InstanceGroup:
        """`path`: projects/P/zones/Z/instanceGroupManagers/G, or regions/R."""
        group = InstanceGroup(path, base_name or path.rsplit("/", 1)[-1], target_size)
        with self._changed:
            self.groups[path] = group
            self._changed.notify_all()
        return group

    def allow(self, identity: str, permission: str, path: str) -> None:
        """Grant one permission on one group."""
        with self._changed:
            self._allowed.add((identity, permission, path))

    def fail_next(self, *statuses: HTTPStatus) -> None:
        """Answer the next requests with these, one each."""
        with self._changed:
            self._failures += statuses

    def change(self, act: Callable[[], None]) -> None:
        """Change groups under the lock, and wake who waits."""
        with self._changed:
            act()
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until `predicate()` holds, under the lock; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(predicate, timeout)

    def answer(self, method: str, target: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        url = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        with self._changed:
            identity = self._identify(token) if token else None
            self.requests.append((identity or "", method, target))
            self._changed.notify_all()
            if self._failures:
                raise Refused(self._failures.pop(0), "The service is currently unavailable.", "backendError")
            if identity is None:
                raise Refused(HTTPStatus.UNAUTHORIZED, "Request had invalid authentication credentials.", "authError")
            group, verb = self._find(url.path)
            permission = UPDATE if verb in ("resize", "recreateInstances") else READ
            if (identity, permission, group.path) not in self._allowed:
                why = f"Required '{permission}' permission for '{group.path}'"
                raise Refused(HTTPStatus.FORBIDDEN, why, "forbidden")
            match (method, verb):
                case ("GET", ""):
                    return self._resource(group)
                case ("POST", "resize"):
                    return self._resize(group, identity, query)
                case ("POST", "recreateInstances"):
                    return self._recreate(group, identity, query, body)
                case ("POST", "listManagedInstances"):
                    return {"managedInstances": [self._instance(group, one) for one in group.instances.values()]}
                case ("GET", "listErrors"):
                    return {"items": list(group.errors)}
            raise Refused(HTTPStatus.NOT_FOUND, f"{method} {url.path} is not a method.", "notFound")

    def _find(self, path: str) -> tuple[InstanceGroup, str]:
        parts = path.removeprefix(PREFIX).split("/")
        group = self.groups.get("/".join(parts[:6]))
        if not path.startswith(PREFIX) or group is None or len(parts) > 7:
            raise Refused(HTTPStatus.NOT_FOUND, f"The resource '{path.removeprefix(PREFIX)}' was not found", "notFound")
        return group, parts[6] if len(parts) == 7 else ""

    def _resize(self, group: InstanceGroup, identity: str, query: dict[str, str]) -> dict[str, Any]:
        size = query.get("size", "")
        if not size.isdigit():
            raise Refused(HTTPStatus.BAD_REQUEST, f"Invalid value for field 'size': '{size}'.", "invalid")

        def act() -> None:
            group.target_size = int(size)

        return self._operation(group, identity, "resize", query, act)

    def _recreate(
        self, group: InstanceGroup, identity: str, query: dict[str, str], body: dict[str, Any]
    ) -> dict[str, Any]:
        names = [str(url).rsplit("/", 1)[-1] for url in body.get("instances", [])]
        unknown = [name for name in names if name not in group.instances]
        if not names or unknown:
            why = f"The following instances are not members of the group: {', '.join(unknown) or '(none named)'}"
            raise Refused(HTTPStatus.BAD_REQUEST, why, "invalid")
        return self._operation(group, identity, "recreateInstances", query, lambda: group.recreate.extend(names))

    def _operation(
        self, group: InstanceGroup, identity: str, verb: str, query: dict[str, str], act: Callable[[], None]
    ) -> dict[str, Any]:
        """Do it; a request that comes again under its `requestId` gets the same operation, and nothing is done."""
        request = query.get("requestId", "")
        if request and request in self._operations:
            return self._operations[request]
        act()
        self._changed.notify_all()
        number = len(self.requests)
        name = f"operation-{number}"
        operation: dict[str, Any] = {
            "kind": "compute#operation",
            "id": str(number),
            "name": name,
            "operationType": f"compute.instanceGroupManagers.{verb}",
            "status": "DONE",
            "progress": 100,
            "user": identity,
            "targetLink": f"{self.url}{PREFIX}{group.path}",
            "insertTime": datetime.now(UTC).isoformat(),
        }
        self._operations[request or name] = operation
        return operation

    def _resource(self, group: InstanceGroup) -> dict[str, Any]:
        actions = {action.lower(): 0 for action in _ACTIONS}
        for instance in group.instances.values():
            actions[instance.action.lower()] = actions.get(instance.action.lower(), 0) + 1
        stable = len(group.instances) == group.target_size == actions["none"]
        return {
            "kind": "compute#instanceGroupManager",
            "name": group.name,
            "baseInstanceName": group.base_name,
            "targetSize": group.target_size,
            "currentActions": actions,
            "status": {"isStable": stable},
            "selfLink": f"{self.url}{PREFIX}{group.path}",
        }

    def _instance(self, group: InstanceGroup, instance: ManagedInstance) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "instance": f"{self.url}{PREFIX}{group.place}/instances/{instance.name}",
            "name": instance.name,
            "currentAction": instance.action,
        }
        if instance.status:
            shown["instanceStatus"] = instance.status
        if instance.errors:
            shown["lastAttempt"] = {"errors": {"errors": instance.errors}}
        return shown
