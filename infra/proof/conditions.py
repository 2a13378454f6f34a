"""Conditions of grants, evaluated as IAM would, by the CEL project's own runtime.

It knows what IAM knows and the stacks use, and nothing else: a condition with anything more is refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from cel_expr_python import cel  # type: ignore[import-untyped]

from infra.stacks.deployment import NotDeployable

NAMED = re.compile(
    r"storage\.googleapis\.com/(Bucket|ManagedFolder|Object)"
    r"|secretmanager\.googleapis\.com/(Secret|SecretVersion)"
    r"|compute\.googleapis\.com/(BackendService|Disk|Firewall|Image|Instance|InstanceTemplate|Snapshot)"
)
"""Types that resource.name is there for, of those that the stacks touch. Of others IAM is told no name, and a condition
on it never holds: https://cloud.google.com/iam/docs/conditions-attribute-reference (resource.name)."""

_TEXTS = cel.Type.List(cel.Type.STRING)
_ATTRIBUTES = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)


def holds(
    expression: str,
    *,
    name: str,
    kind: str,
    attributes: Mapping[str, str | Sequence[str]],
    port: int = 0,
) -> bool:
    """Whether the condition is met.

    `name`, `kind`: of the resource, as IAM has it in resource.name and resource.type. `attributes`: what
    api.getAttribute finds, by its key. `port`: of a tunnel's destination.

    Raises:
        NotDeployable: the expression is none of IAM's, or not one that is understood here.
    """
    result = _compiled(expression).eval(
        data={
            "resource": {
                "name": name if NAMED.fullmatch(kind) else "",
                "type": kind,
                "service": kind.partition("/")[0],
            },
            "api": {key: value if isinstance(value, str) else list(value) for key, value in attributes.items()},
            "destination": {"port": port},
        }
    )
    if result.type() != cel.Type.BOOL:
        raise NotDeployable(f"condition {expression} gives no yes or no: {result.value()}")
    return bool(result.value())


@functools.cache
def _compiled(expression: str) -> cel.Expression:
    try:
        compiled = _environment().compile(expression)
    except RuntimeError as error:
        raise NotDeployable(f"condition {expression} is not understood: {error}") from None
    if compiled.return_type() != cel.Type.BOOL:
        raise NotDeployable(f"condition {expression} gives no yes or no")
    return compiled


@functools.cache
def _environment() -> cel.Env:
    texts = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    attribute = [
        cel.Overload(
            f"attribute_{kind.name()}",
            return_type=kind,
            parameters=[_ATTRIBUTES, cel.Type.STRING, kind],
            is_member=True,
            impl=lambda api, key, default: api.get(key, default),
        )
        for kind in (cel.Type.STRING, _TEXTS)
    ]
    only = cel.Overload(
        "has_only",
        return_type=cel.Type.BOOL,
        parameters=[_TEXTS, _TEXTS],
        is_member=True,
        impl=lambda these, allowed: set(these) <= set(allowed),
    )
    return cel.NewEnv(
        variables={
            "resource": texts,
            "api": _ATTRIBUTES,
            "destination": cel.Type.Map(cel.Type.STRING, cel.Type.INT),
        },
        functions=[cel.FunctionDecl("getAttribute", attribute), cel.FunctionDecl("hasOnly", [only])],
    )
