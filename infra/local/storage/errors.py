"""What the API answers when it refuses, in Google's own JSON shape."""

from __future__ import annotations

import json

_REASONS = {
    304: "notModified",
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    405: "methodNotAllowed",
    409: "conflict",
    410: "gone",
    411: "required",
    412: "conditionNotMet",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
    499: "clientClosedRequest",
    500: "backendError",
    502: "backendError",
    503: "backendError",
    504: "backendError",
}


class ApiError(Exception):
    """A refusal with its HTTP status; `headers` go into the answer as they are."""

    def __init__(self, status: int, message: str, *, reason: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or _REASONS.get(status, "backendError")
        self.headers = headers or {}

    def body(self) -> bytes:
        """The error document that Google's clients parse."""
        item = {"message": self.message, "domain": "global", "reason": self.reason}
        error = {"code": self.status, "message": self.message, "errors": [item]}
        return json.dumps({"error": error}).encode()


class Refused(ApiError):
    """400: the request itself is wrong."""

    def __init__(self, message: str, *, reason: str = "invalid") -> None:
        super().__init__(400, message, reason=reason)


class Missing(ApiError):
    """404: no such bucket, object, generation or upload."""

    def __init__(self, message: str) -> None:
        super().__init__(404, message)


class Held(ApiError):
    """403: a hold or a retention policy keeps the object."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(403, message, reason=reason)
