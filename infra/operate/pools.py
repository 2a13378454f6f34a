"""Workload identity pools: what Google still has of one that was taken away."""

from __future__ import annotations

from typing import Any

from infra.operate.api import ApiError, CloudApi

IAM = "https://iam.googleapis.com/v1"


def read_pool(api: CloudApi, path: str) -> dict[str, Any] | None:
    """A pool, or one of its providers, by its path; also one that is deleted, whose state says so. None: there is none,
    or there can be none yet."""
    try:
        return api.get(f"{IAM}/{path}")
    except ApiError as error:
        if error.status == 404 or error.reason == "SERVICE_DISABLED":
            return None
        raise


def undelete_pool(api: CloudApi, path: str) -> None:
    """Give it back. Raises ApiError."""
    api.post(f"{IAM}/{path}:undelete", {})
