"""What a check finds, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from infra.operate.api import CloudApi
from infra.stacks.deployment import Deployment

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `note`: worth knowing, stops nothing. `fix`: the command to type or the page to open."""

    what: str
    status: Status
    told: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What the checks of a deployment look at."""

    deployment: Deployment
    api: CloudApi


ToolCheck = Callable[[], list[Finding]]
CloudCheck = Callable[[Patient], list[Finding]]


def ok(what: str, told: str) -> Finding:
    return Finding(what=what, status="ok", told=told)


def note(what: str, told: str, fix: str = "") -> Finding:
    return Finding(what=what, status="note", told=told, fix=fix)


def problem(what: str, told: str, fix: str) -> Finding:
    return Finding(what=what, status="problem", told=told, fix=fix)
