"""Who may do what, read from the stacks' JSON as Terraform would apply it, and evaluated as IAM would.

Only additive grants are known (google_*_iam_member). Anything else that touches a policy is refused, so that nothing
is handed out that is not looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.proof.conditions import holds
from infra.proof.predefined import permits
from infra.stacks.deployment import NotDeployable

Json = dict[str, Any]

_SCOPES = {
    "google_project_iam_member": ("project", "project"),
    "google_storage_bucket_iam_member": ("bucket", "bucket"),
    "google_secret_manager_secret_iam_member": ("secret", "secret_id"),
    "google_service_account_iam_member": ("account", "service_account_id"),
    "google_kms_crypto_key_iam_member": ("key", "crypto_key_id"),
    "google_billing_account_iam_member": ("billing", "billing_account_id"),
}
"""Terraform's type of a grant: what it is on, and the attribute that names it."""

_REFERENCE = re.compile(r"\$\{(google_\w+)\.([\w-]+)\.(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What somebody wants to do something with. `within`: everything a grant that covers it may be on."""

    name: str
    """As IAM has it in resource.name."""
    kind: str
    """As IAM has it in resource.type."""
    within: tuple[tuple[str, str], ...]
    attributes: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    port: int = 0


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A member has a role on something, under a condition."""

    on: tuple[str, str]
    role: str
    member: str
    condition: str | None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that the stacks grant."""

    grants: tuple[Grant, ...]
    roles: Mapping[str, frozenset[str]]
    """Permissions of the stacks' own roles, by path."""

    @classmethod
    def of(cls, stacks: Iterable[Json], *, project: str) -> Policy:
        """Read synthesized stacks. Raises NotDeployable for a grant of a kind that is not understood."""
        roles: dict[str, frozenset[str]] = {}
        grants: list[Grant] = []
        for stack in stacks:
            resources: dict[str, dict[str, Json]] = stack.get("resource", {})
            for role in resources.get("google_project_iam_custom_role", {}).values():
                roles[f"projects/{project}/roles/{role['role_id']}"] = frozenset(role["permissions"])
            for kind, named in resources.items():
                if kind in _SCOPES:
                    grants += [_grant(kind, each, resources, project=project) for each in named.values()]
                elif re.search(r"_iam_(binding|policy|audit_config)$|_iam_member$|_access_control$|_acl$", kind):
                    raise NotDeployable(
                        f"{kind} hands out rights that nobody looks at\n    fix: use google_*_iam_member"
                    )
        return cls(grants=tuple(grants), roles=roles)

    def allows(self, member: str, permission: str, resource: Resource, *, surely: bool = False) -> bool:
        """Whether some grant lets `member` do `permission` to `resource`; what Google's roles allow is taken at most,
        or, `surely`, at least."""
        return any(
            grant.member == member
            and grant.on in resource.within
            and self._has(grant.role, permission, surely=surely)
            and (
                grant.condition is None
                or holds(
                    grant.condition,
                    name=resource.name,
                    kind=resource.kind,
                    attributes=resource.attributes,
                    port=resource.port,
                )
            )
            for grant in self.grants
        )

    def _has(self, role: str, permission: str, *, surely: bool) -> bool:
        if role.startswith("roles/"):
            return permits(role, permission, surely=surely)
        if role not in self.roles:
            raise NotDeployable(f"{role} is granted, and no stack makes it")
        return permission in self.roles[role]


def _grant(kind: str, written: Json, resources: Mapping[str, Mapping[str, Json]], *, project: str) -> Grant:
    scope, attribute = _SCOPES[kind]
    condition = written.get("condition")
    if isinstance(condition, list):
        (condition,) = condition

    def known(text: str) -> str:
        return known_text(text, resources, project=project)

    on = known(written[attribute])
    return Grant(
        on=(scope, on.rpartition("/")[2] if scope in ("secret", "account") else on),
        role=known(written["role"]),
        member=known(written["member"]),
        condition=condition["expression"] if condition else None,
    )


def known_text(text: str, resources: Mapping[str, Mapping[str, Json]], *, project: str) -> str:
    """`text` with what Terraform will have in place of each reference that is known here."""
    return _REFERENCE.sub(lambda match: _value(*match.groups(), resources=resources, project=project), text)


def _value(kind: str, name: str, attribute: str, *, resources: Mapping[str, Mapping[str, Json]], project: str) -> str:
    """What Terraform will have in place of ${kind.name.attribute}."""
    written = resources.get(kind, {}).get(name, {})
    email = f"{written.get('account_id')}@{project}.iam.gserviceaccount.com"
    values = {
        ("google_service_account", "email"): email,
        ("google_service_account", "name"): f"projects/{project}/serviceAccounts/{email}",
        ("google_service_account", "id"): f"projects/{project}/serviceAccounts/{email}",
        ("google_service_account", "member"): f"serviceAccount:{email}",
        ("google_storage_bucket", "name"): written.get("name"),
        ("google_secret_manager_secret", "secret_id"): written.get("secret_id"),
        ("google_secret_manager_secret", "id"): f"projects/{project}/secrets/{written.get('secret_id')}",
        ("google_iam_workload_identity_pool", "name"): f"pools/{written.get('workload_identity_pool_id')}",
    }
    value = values.get((kind, attribute)) if written else None
    if value is None:
        raise NotDeployable(f"a grant names ${{{kind}.{name}.{attribute}}}, of which nothing is known")
    return value
