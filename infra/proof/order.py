"""What a resource names, or calls, is there before it.

Terraform draws an edge where it sees a reference. A name that is written out, and an API that has to be on, are
dependencies that nobody draws: where the two race, the first deployment fails in one project and works in the next.
So each must be reached through references and `depends_on`, or be in a stack that is applied before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.proof.expressions import scan
from infra.proof.mistake import Mistake
from infra.proof.references import texts

Json = dict[str, Any]
Node = tuple[str, str]
"""(stack, address)."""

NAMED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "google_billing_budget",
            "google_compute_instance_template",
            "google_monitoring_alert_policy",
            "google_monitoring_dashboard",
            "google_monitoring_notification_channel",
            "google_project_service",
        ),
        (),  # Google, or the provider, makes their names up
    ),
    "google_compute_firewall": ("firewalls/{name}",),
    "google_compute_health_check": ("healthChecks/{name}",),
    "google_compute_instance_group_manager": ("instanceGroupManagers/{name}",),
    "google_compute_network": ("networks/{name}",),
    "google_compute_region_instance_group_manager": ("instanceGroupManagers/{name}",),
    "google_compute_router": ("routers/{name}", "=router:{name}"),
    "google_compute_router_nat": (),
    "google_compute_subnetwork": ("subnetworks/{name}",),
    "google_iam_workload_identity_pool": (
        "workloadIdentityPools/{workload_identity_pool_id}",
        "=workload_identity_pool_id:{workload_identity_pool_id}",
    ),
    "google_iam_workload_identity_pool_provider": (),
    "google_logging_metric": (),  # alerts and dashboards take a metric that is not there yet
    "google_project_iam_custom_role": ("projects/{project}/roles/{role_id}",),
    "google_secret_manager_secret": ("secrets/{secret_id}", "=secret_id:{secret_id}"),
    "google_service_account": ("{account_id}@{project}.iam.gserviceaccount.com",),
    "google_storage_bucket": ("gs://{name}", "buckets/{name}", "=bucket:{name}"),
    "google_storage_bucket_object": ("gs://{bucket}/{name}",),
}
"""How others name a resource of this type in a text; `=FIELD:` as the whole of such a field."""

ACT_AS = "roles/iam.serviceAccountUser"

APIS: dict[str, tuple[str, ...]] = {
    "google_billing_account_iam_member": ("cloudbilling",),
    "google_billing_budget": ("billingbudgets",),
    "google_compute_": ("compute",),
    "google_iam_workload_identity_pool": ("iam",),
    "google_kms_crypto_key_iam_member": (),  # that of the key's own project, which its owner looks after
    "google_logging_": ("logging",),
    "google_monitoring_": ("monitoring",),
    "google_project": ("cloudresourcemanager",),
    "google_project_iam_custom_role": ("iam",),
    "google_project_iam_member": ("cloudresourcemanager",),
    "google_project_service": (),
    "google_secret_manager_": ("secretmanager",),
    "google_service_account": ("iam",),
    "google_storage_": ("storage",),
    "google_storage_bucket": ("storage", "compute"),  # the provider asks Compute Engine for the project's number
}
"""The APIs that the provider calls for types that begin so; the longest counts."""


def mistakes(stacks: Mapping[str, Json], before: Mapping[str, Collection[str]]) -> Iterator[Mistake]:
    """`stacks`: all of one app; `before`: for each, those that are applied before it, as the app's manifest has it."""
    yield from _App(stacks, before).mistakes()


@dataclass(frozen=True)
class _App:
    stacks: Mapping[str, Json]
    before: Mapping[str, Collection[str]]

    def mistakes(self) -> Iterator[Mistake]:
        names = [
            (pattern_of(name, self.blocks[node], self.stacks[node[0]]), node)
            for node in self.blocks
            for name in self._names(node)
        ]
        enabled = {
            self.blocks[node]["service"].removesuffix(".googleapis.com"): node
            for node in self.blocks
            if node[1].startswith("google_project_service.")
        }
        for node, body in self.blocks.items():
            yield from self._apis_on(node, enabled)
            yield from self._acts_as(node)
            for path, text in texts(node[1], body):
                said = f"{path.rpartition('.')[2]}:{text}"
                for pattern, other in names:
                    if other != node and pattern.search(said) and not self._waits(node, other):
                        reason = f"names {other[1]} of {other[0]}, and does not wait for it"
                        yield self._late(node, other, path, reason)

    def _apis_on(self, node: Node, enabled: Mapping[str, Node]) -> Iterator[Mistake]:
        stack, address = node
        of_type = _type(address)
        known = [start for start in APIS if of_type.startswith(start)]
        if not known or not (address.startswith("data.") or of_type in NAMED or of_type.endswith("_iam_member")):
            reason = f"nobody has said which API {of_type} calls, and how others name it"
            yield Mistake(stack=stack, path=address, reason=reason, fix="write it into infra/proof/order.py")
        if not enabled:  # an app that turns none on leaves all to whoever applies it
            return
        for api in APIS[max(known, key=len)] if known else ():
            if api not in enabled:
                fix = "add it to infra/stacks/foundation/services.py"
                yield Mistake(stack=stack, path=address, reason=f"nothing turns {api}.googleapis.com on", fix=fix)
            elif not self._comes_after(node, enabled[api]):
                reason = f"does not wait for {api}.googleapis.com to be on"
                yield self._late(node, enabled[api], address, reason)

    def _acts_as(self, node: Node) -> Iterator[Mistake]:
        """Who makes VMs of an identity must be let act as it first, also where that is said in the same breath."""
        if not _type(node[1]).startswith(("google_compute_instance_", "google_compute_region_instance_")):
            return
        for other, body in self.blocks.items():
            lets = _type(other[1]) == "google_service_account_iam_member" and body["role"] == ACT_AS
            if lets and self._direct[other] & self.needs[node] and not self._comes_after(node, other):
                yield self._late(
                    node, other, node[1], f"needs the right to act as its VMs, and does not wait for {other[1]}"
                )

    @cached_property
    def blocks(self) -> dict[Node, Json]:
        return {
            (stack, f"{start}{of_type}.{name}"): body
            for stack, synthesized in self.stacks.items()
            for kind, start in (("resource", ""), ("data", "data."))
            for of_type, named in synthesized.get(kind, {}).items()
            for name, body in named.items()
        }

    @cached_property
    def needs(self) -> dict[Node, set[Node]]:
        """All that Terraform makes before a resource, in the same stack."""
        return {node: _closure(node, self._direct) for node in self._direct}

    @cached_property
    def _direct(self) -> dict[Node, set[Node]]:
        direct: dict[Node, set[Node]] = {}
        for (stack, address), body in self.blocks.items():
            written = [text for _, text in texts(address, body)]
            written += [f"${{{name}}}" for name in body.get("depends_on", ())]
            steps = [reference.steps for text in written for reference in scan(text).references]
            named = {".".join(one[: 3 if one[0] == "data" else 2]) for one in steps}
            direct[stack, address] = {(stack, name) for name in named if (stack, name) in self.blocks}
        return direct

    @cached_property
    def _stacks_before(self) -> dict[str, set[str]]:
        direct = {stack: set(self.before.get(stack, ())) for stack in self.stacks}
        return {stack: _closure(stack, direct) for stack in direct}

    def _comes_after(self, node: Node, other: Node) -> bool:
        return other in self.needs[node] if node[0] == other[0] else other[0] in self._stacks_before[node[0]]

    def _waits(self, node: Node, other: Node) -> bool:
        """Itself, or all who use it: what a template says is read by VMs, which its group makes. A group that its own
        template names can't be there before it."""
        users = [user for user, needs in self.needs.items() if node in needs]
        return (
            self._comes_after(node, other)
            or self._comes_after(other, node)
            or bool(users and all(user == other or self._comes_after(user, other) for user in users))
        )

    def _names(self, node: Node) -> tuple[str, ...]:
        return () if node[1].startswith("data.") else NAMED.get(_type(node[1]), ())

    @staticmethod
    def _late(node: Node, other: Node, path: str, reason: str) -> Mistake:
        fix = f"refer to it, or write depends_on {other[1]}" if node[0] == other[0] else f"let it depend on {other[0]}"
        return Mistake(stack=node[0], path=path, reason=reason, fix=fix)


def pattern_of(name: str, body: Json, stack: Json) -> re.Pattern[str]:
    """What to look for in FIELD:TEXT, for one of NAMED's ways to name a resource."""
    project = stack.get("provider", {}).get("google", [{}])[0].get("project", "")
    text = re.escape(name.removeprefix("=").format_map({"project": project} | body))
    return re.compile(rf"^{text}$" if name.startswith("=") else rf"(?<![\w.-]){text}(?![\w-]|\.\w)")


def _type(address: str) -> str:
    return address.removeprefix("data.").partition(".")[0]


def _closure(start: Any, direct: Mapping[Any, set[Any]]) -> set[Any]:
    found: set[Any] = set()
    front = set(direct.get(start, ()))
    while front:
        found |= front
        front = set().union(*(direct.get(one, set()) for one in front)) - found
    return found
