"""One stack's JSON, part by part: Terraform's own blocks here, all others against the provider's schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.proof import references, scripts, secrets
from infra.proof.mistake import Mistake, suggest
from infra.proof.schema import COMMENT, Schema

Json = dict[str, Any]

SOURCE = "hashicorp/google"
_CHECKED = frozenset({COMMENT, "terraform", "provider", "resource", "data", "output", "locals", "variable"})
_BACKEND = frozenset({"bucket", "prefix", "impersonate_service_account", "kms_encryption_key"})
"""Of the gcs backend, what is no secret: credentials, access_token and encryption_key would end up in plan files."""
_LIFECYCLE = frozenset(
    {"create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by", "precondition",
     "postcondition"}
)  # fmt: skip


def mistakes(stack: str, synthesized: Json, schema: Schema) -> Iterator[Mistake]:
    """All that is wrong in one cdk.tf.json."""
    for part in synthesized:
        if part not in _CHECKED:
            yield Mistake(stack=stack, path=part, reason="can't be checked here", fix=suggest(part, _CHECKED))
    yield from _terraform(stack, synthesized.get("terraform", {}), schema)
    for of_type, bodies in synthesized.get("provider", {}).items():
        for place, body in enumerate(bodies):
            path = f"provider.{of_type}[{place}]"
            yield from schema.mistakes(stack, path, kind="provider", of_type=of_type, body=body)
    for kind, start in (("resource", ""), ("data", "data.")):
        for of_type, named in synthesized.get(kind, {}).items():
            for name, body in named.items():
                path = f"{start}{of_type}.{name}"
                yield from schema.mistakes(stack, path, kind=kind, of_type=of_type, body=body)
                yield from _lifecycle(stack, path, body)
    yield from references.mistakes(stack, synthesized, schema)
    yield from scripts.mistakes(stack, synthesized)
    yield from secrets.mistakes(stack, synthesized)


def _terraform(stack: str, block: Json, schema: Schema) -> Iterator[Mistake]:
    wanted = {"source": SOURCE, "version": schema.version}
    pinned = block.get("required_providers", {}).get("google", {})
    for name, value in wanted.items():
        if pinned.get(name) != value:
            path = f"terraform.required_providers.google.{name}"
            reason = f"is {pinned.get(name)!r}, and the bindings are made for {value}"
            yield Mistake(stack=stack, path=path, reason=reason, fix=f"write {value}")
    backends = block.get("backend", {})
    if list(backends) != ["gcs"]:
        reason = f"state goes to {', '.join(backends) or 'this machine'}, where no other operator finds it"
        yield Mistake(stack=stack, path="terraform.backend", reason=reason, fix="write a gcs backend")
        return
    for name in ("bucket", "prefix"):
        if not backends["gcs"].get(name):
            path = f"terraform.backend.gcs.{name}"
            yield Mistake(stack=stack, path=path, reason="is required, and is missing", fix=f"write {name}")
    for name in backends["gcs"]:
        if name not in _BACKEND:
            path = f"terraform.backend.gcs.{name}"
            yield Mistake(stack=stack, path=path, reason="is unknown, or a secret", fix=suggest(name, _BACKEND))


def _lifecycle(stack: str, path: str, body: Any) -> Iterator[Mistake]:
    for name in body.get("lifecycle", {}) if isinstance(body, dict) else ():
        if name not in _LIFECYCLE:
            where = f"{path}.lifecycle.{name}"
            yield Mistake(stack=stack, path=where, reason="is unknown", fix=suggest(name, _LIFECYCLE))
