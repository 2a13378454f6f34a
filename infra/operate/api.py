"""Google's REST APIs, with the operator's own login: small JSON calls, each bounded in time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import google.auth
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from requests import RequestException

ENDPOINT_VARIABLE = "SPOT_API_ENDPOINT"
"""A server that answers instead of Google's, at ENDPOINT/HOST/PATH, and needs no login: for tests and proxies."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_CALL_S = 15.0


class ApiError(Exception):
    """Google refused, or gave no answer (status 0); the text is Google's own."""

    def __init__(self, status: int, text: str, *, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        """Google's own word, such as SERVICE_DISABLED."""


class NotLoggedIn(Exception):
    """There are no application default credentials, or they are of no use any more."""


class CloudApi:
    """One login, many calls; thread-safe. Raises NotLoggedIn where there is none."""

    def __init__(self, *, project: str | None = None, endpoint: str | None = None) -> None:
        self._endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE)
        try:
            if self._endpoint:
                credentials = AnonymousCredentials()
            else:
                credentials, _ = google.auth.default(scopes=[_SCOPE], quota_project_id=project)
                credentials.refresh(partial(Request(), timeout=_CALL_S))
        except GoogleAuthError as error:
            raise NotLoggedIn(str(error)) from None
        self._session = AuthorizedSession(credentials)

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to GET `url`, such as https://compute.googleapis.com/compute/v1/projects/P."""
        return self._call("GET", url, params=params)

    def post(self, url: str, body: dict[str, Any], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("POST", url, params=params, json=body)

    def _call(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        if self._endpoint:
            parts = urlsplit(url)
            url = f"{self._endpoint}/{parts.netloc}{parts.path}"
        try:
            answer = self._session.request(method, url, timeout=_CALL_S, max_allowed_time=_CALL_S, **more)
        except (RequestException, GoogleAuthError) as error:
            raise ApiError(0, f"no answer from {urlsplit(url).netloc}: {error}") from None
        try:
            told: dict[str, Any] = answer.json()
        except ValueError:
            told = {}
        if answer.ok:
            return told
        refusal = told.get("error")
        if not isinstance(refusal, dict):
            refusal = {}
        reason = next((detail["reason"] for detail in refusal.get("details", []) if "reason" in detail), "")
        text = refusal.get("message") or f"{answer.status_code} {answer.reason} from {urlsplit(url).netloc}"
        raise ApiError(answer.status_code, text, reason=reason)
