"""An HTTP answer as it came: its status, its body, and the server's own words where it refuses."""

from __future__ import annotations

import http
import http.client
import json
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from agent.store.base import Unavailable

_NO_BUCKET = "The specified bucket does not exist"


@dataclass(frozen=True)
class Reply:
    """An answer. `body` is where the question wanted it."""

    status: int
    headers: http.client.HTTPMessage
    body: memoryview

    def reason(self) -> str:
        """The server's own words, in one line."""
        text = self._error().get("message") or bytes(self.body[:200]).decode("utf-8", "replace")
        return " ".join(str(text).split()) or f"status {self.status}"

    def kind(self) -> str:
        """The server's word for why it refused, such as `forbidden`; empty if it gave none."""
        errors = self._error().get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        return str(first.get("reason", "")) if isinstance(first, dict) else ""

    def lacks_bucket(self) -> bool:
        """Whether a 404 speaks of the bucket, not of an object."""
        return self.status == 404 and _NO_BUCKET in self.reason()

    def retry_after(self) -> float:
        """Seconds for which the server wants to be left alone; 0 if it does not say."""
        text = self.headers.get("Retry-After", "").strip()
        if text.isdigit():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else 0.0
        except (ValueError, OverflowError):
            return 0.0

    def document(self) -> dict[str, Any]:
        """The JSON object that it holds."""
        try:
            parsed = json.loads(bytes(self.body))
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise Unavailable(f"an answer that is not Cloud Storage's (is a proxy between?): {self.reason()}")
        return parsed

    def _error(self) -> dict[str, Any]:
        if self.status < http.HTTPStatus.BAD_REQUEST:  # an object's own bytes are nobody's words
            return {}
        try:
            error = json.loads(bytes(self.body))["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return error if isinstance(error, dict) else {}
