"""The control API under /_local/: what tests, demo and benchmarks set and ask at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.faults import Fault, Faults, Outage
from infra.local.storage.iam import Iam, Rule, Token
from infra.local.storage.messages import Response, json_response
from infra.local.storage.objects import Storage
from infra.local.storage.seen import SeenLog
from infra.local.storage.throttle import Throttle, Throttles
from infra.local.storage.uploads import Sessions

CONTROL_PREFIX = "/_local/"
Model = TypeVar("Model")


class NewBucket(BaseModel):
    """A bucket to create, with whatever else its resource shall hold."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str


class Corruption(BaseModel):
    """Flip the byte at `offset`. The stored checksums stay as they were unless `fresh_checksum`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str
    name: str
    offset: int = Field(default=0, ge=0)
    fresh_checksum: bool = False


class Truncation(BaseModel):
    """Keep only the first `size` bytes; the object's own size and checksums follow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str
    name: str
    size: int = Field(ge=0)


def _parse(model: type[Model], content: bytes) -> Model:
    try:
        return TypeAdapter(model).validate_json(content)
    except ValidationError as error:
        # Inputs stay out: one of them may be a token.
        reasons = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise Refused(f"Invalid control request: {reasons}") from None


class LocalApi:
    """Carries out control requests; never throttled, never struck by a fault, open to everybody on loopback."""

    def __init__(
        self,
        *,
        storage: Storage,
        iam: Iam,
        faults: Faults,
        throttles: Throttles,
        seen: SeenLog,
        sessions: Sessions,
    ) -> None:
        self._storage = storage
        self._iam = iam
        self._faults = faults
        self._throttles = throttles
        self._seen = seen
        self._sessions = sessions
        self._routes: dict[tuple[str, str], Callable[[bytes, dict[str, list[str]]], Response]] = {
            ("POST", "buckets"): self._create_bucket,
            ("PUT", "throttle"): self._set_throttle,
            ("GET", "throttle"): lambda *_: json_response(self._throttles.limits.model_dump()),
            ("POST", "faults"): self._add_fault,
            ("GET", "faults"): lambda *_: json_response([f.model_dump() for f in self._faults.pending()]),
            ("PUT", "outage"): self._begin_outage,
            ("DELETE", "outage"): self._end_outage,
            ("PUT", "iam"): self._set_iam,
            ("POST", "tokens"): self._add_token,
            ("POST", "corrupt"): self._corrupt,
            ("POST", "truncate"): self._truncate,
            ("GET", "requests"): self._requests,
            ("DELETE", "requests"): self._forget_requests,
            ("POST", "clear"): self._clear,
            ("POST", "reset"): self._reset,
        }

    def handle(self, method: str, path: str, query: str, content: bytes) -> Response:
        """The answer to a control request; `path` is what follows /_local/."""
        route = self._routes.get((method, path))
        if route is None:
            known = ", ".join(sorted(f"{verb} {CONTROL_PREFIX}{name}" for verb, name in self._routes))
            raise Refused(f"No such control request: {method} {CONTROL_PREFIX}{path}. There are: {known}.")
        try:
            return route(content, parse_qs(query))
        except IndexError as error:
            raise ApiError(400, f"Out of range: {error}") from None

    def _create_bucket(self, content: bytes, _: object) -> Response:
        wanted = _parse(NewBucket, content)
        self._storage.create_bucket(wanted.name, wanted.model_dump(exclude={"name"}))
        return Response(204)

    def _set_throttle(self, content: bytes, _: object) -> Response:
        self._throttles.limits = _parse(Throttle, content)
        return Response(204)

    def _add_fault(self, content: bytes, _: object) -> Response:
        self._faults.add(_parse(Fault, content))
        return Response(204)

    def _begin_outage(self, content: bytes, _: object) -> Response:
        self._faults.begin_outage(_parse(Outage, content))
        return Response(204)

    def _end_outage(self, *_: object) -> Response:
        self._faults.end_outage()
        return Response(204)

    def _set_iam(self, content: bytes, _: object) -> Response:
        self._iam.set_rules(_parse(list[Rule], content))
        return Response(204)

    def _add_token(self, content: bytes, _: object) -> Response:
        self._iam.add_token(_parse(Token, content))
        return Response(204)

    def _corrupt(self, content: bytes, _: object) -> Response:
        wanted = _parse(Corruption, content)
        self._storage.bucket(wanted.bucket).swap_data(
            wanted.name,
            lambda data: data.with_flipped_byte(wanted.offset),
            fresh_checksum=wanted.fresh_checksum,
        )
        return Response(204)

    def _truncate(self, content: bytes, _: object) -> Response:
        wanted = _parse(Truncation, content)
        self._storage.bucket(wanted.bucket).swap_data(
            wanted.name, lambda data: data.part(0, wanted.size), fresh_checksum=True
        )
        return Response(204)

    def _requests(self, _: bytes, query: dict[str, list[str]]) -> Response:
        since = int(query.get("since", ["0"])[0])
        return json_response([asdict(entry) for entry in self._seen.since(since)])

    def _forget_requests(self, *_: object) -> Response:
        self._seen.clear()
        return Response(204)

    def _clear(self, *_: object) -> Response:
        """No more faults, outages or throttles."""
        self._faults.clear()
        self._throttles.limits = Throttle()
        return Response(204)

    def _reset(self, *_: object) -> Response:
        """As new: `clear`, and no buckets, uploads, tokens, rules or requests seen."""
        self._clear()
        self._storage.forget_everything()
        self._sessions.clear()
        self._iam.clear()
        self._seen.clear()
        return Response(204)
