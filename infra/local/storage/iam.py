"""Who may do what: bearer tokens that expire, and rules per identity, action and object-name prefix."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.local.storage.errors import ApiError

Action = Literal[
    "create",
    "get",
    "list",
    "delete",
    "update",
    "buckets.create",
    "buckets.get",
    "buckets.list",
    "buckets.delete",
    "buckets.update",
    "buckets.getIamPolicy",
    "buckets.setIamPolicy",
]
ANONYMOUS = "allUsers"


class Rule(BaseModel):
    """Allows or forbids actions to an identity ("*": to everybody) under a prefix of object names.

    A listing is under a prefix if what it asks for is. `forbid` wins over `allow`, as deny policies do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    effect: Literal["allow", "forbid"] = "allow"
    actions: frozenset[Action]
    bucket: str | None = None
    prefix: str = ""

    def covers(self, identity: str, action: str, bucket: str, name: str) -> bool:
        return (
            self.identity in ("*", identity)
            and action in self.actions
            and self.bucket in (None, bucket)
            and name.startswith(self.prefix)
        )


class Token(BaseModel):
    """A bearer token of an identity, good for `lifetime_s` seconds from now (null: for ever)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(min_length=1, repr=False)
    identity: str
    lifetime_s: float | None = None


class Iam:
    """Without rules everybody may do everything; without tokens nobody is asked for one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._rules: tuple[Rule, ...] = ()

    @property
    def enforced(self) -> bool:
        return bool(self._rules)

    def set_rules(self, rules: list[Rule]) -> None:
        self._rules = tuple(rules)

    def add_token(self, token: Token) -> None:
        expires = float("inf") if token.lifetime_s is None else self._clock() + token.lifetime_s
        with self._lock:
            self._tokens[token.token] = (token.identity, expires)

    def clear(self) -> None:
        with self._lock:
            self._tokens.clear()
        self._rules = ()

    def identify(self, authorization: str | None) -> str:
        """The identity behind an Authorization header; 401 for a token that is unknown or expired."""
        if authorization is None or not self._tokens:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        identity, expires = self._tokens.get(token.strip(), ("", 0.0))
        if scheme.lower() != "bearer" or not identity or self._clock() >= expires:
            raise _unauthorized("Invalid Credentials")
        return identity

    def allows(self, identity: str, action: str, bucket: str, name: str = "") -> bool:
        """True if the rules let `identity` do it."""
        if not self._rules:
            return True
        covering = [rule.effect for rule in self._rules if rule.covers(identity, action, bucket, name)]
        return "allow" in covering and "forbid" not in covering

    def check(self, identity: str, action: str, bucket: str, name: str = "") -> None:
        """403, or 401 for the anonymous, unless the rules allow it."""
        if self.allows(identity, action, bucket, name):
            return
        permission = f"storage.{action}" if action.startswith("buckets.") else f"storage.objects.{action}"
        kind = "bucket" if action.startswith("buckets.") else "object"
        who = "Anonymous caller" if identity == ANONYMOUS else identity
        message = (
            f"{who} does not have {permission} access to the Google Cloud Storage {kind}. "
            f"Permission '{permission}' denied on resource (or it may not exist)."
        )
        if identity == ANONYMOUS:
            raise _unauthorized(message, reason="required")
        raise ApiError(403, message)


def _unauthorized(message: str, reason: str = "authError") -> ApiError:
    return ApiError(
        401,
        message,
        reason=reason,
        headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
    )
