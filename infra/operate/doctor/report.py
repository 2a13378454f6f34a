"""The report: a line a finding, and below it what to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from infra.operate.doctor.finding import Finding

_MARKS = {"ok": ("ok     ", "green"), "note": ("note   ", "yellow"), "problem": ("PROBLEM", "bold red")}


def has_problems(findings: Iterable[Finding]) -> bool:
    return any(finding.status == "problem" for finding in findings)


def show(console: Console, findings: Iterable[Finding]) -> None:
    for finding in findings:
        mark, style = _MARKS[finding.status]
        console.print(Text.assemble((mark, style), f"  {finding.what}: {finding.told}"), soft_wrap=True)
        if finding.fix:
            console.print(Text(f"           fix: {finding.fix}", style="cyan"), soft_wrap=True)


def as_json(findings: Iterable[Finding]) -> str:
    """{"healthy": ..., "findings": [{what, status, told, fix}, ...]}"""
    listed = list(findings)
    told = {"healthy": not has_problems(listed), "findings": [dataclasses.asdict(finding) for finding in listed]}
    return json.dumps(told, indent=2)
