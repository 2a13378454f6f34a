"""A request as the API sees it, and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from infra.local.storage.errors import ApiError, Refused
from infra.local.storage.flow import Body
from infra.local.storage.memory import Data
from infra.local.storage.routes import Target


@dataclass(frozen=True)
class Request:
    """One request, its body not yet received. `host` is the server's own address as the client wrote it."""

    method: str
    target: Target
    query_string: str
    headers: Message
    body: Body
    host: str
    identity: str

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))


@dataclass
class Response:
    """An answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    data: Data = field(default_factory=Data)


def json_response(document: Any, status: int = 200) -> Response:
    content = json.dumps(document).encode()
    return Response(status, {"Content-Type": "application/json; charset=UTF-8"}, Data.of(content))


def error_response(error: ApiError) -> Response:
    if error.status == 304:
        return Response(304)
    headers = {"Content-Type": "application/json; charset=UTF-8", **error.headers}
    return Response(error.status, headers, Data.of(error.body()))


def number(query: dict[str, str], name: str) -> int | None:
    """A query parameter as a number, None if it is absent; 400 if it is none."""
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise Refused(f"Invalid value for {name}: {text!r}.")
    return int(text)


def flag(query: dict[str, str], name: str) -> bool:
    """A query parameter as a boolean; Google's Python client writes it `True`."""
    return query.get(name, "").lower() == "true"
