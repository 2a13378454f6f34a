"""Command lines that read the agent's journal: on the VM, or, when it is gone, in Cloud Logging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.stacks.deployment import Deployment

SEVERITIES = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "err": "ERROR", "crit": "CRITICAL"}
"""journalctl's priorities, and Cloud Logging's words for them."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records. `fields`: NAME=VALUE each, as in the journal; `since`: how far back, such as "2h"."""

    event: str | None = None
    priority: str | None = None
    since: str | None = None
    fields: Sequence[str] = ()
    lines: int = 200
    trainer: bool = False

    @property
    def matches(self) -> list[tuple[str, str]]:
        """Name and value of each field that must match."""
        events = [("EVENT", self.event)] if self.event else [("EVENT", "trainer_output")] if self.trainer else []
        return events + [(name.upper(), value) for name, _, value in (field.partition("=") for field in self.fields)]


def journalctl(wanted: Wanted, *, follow: bool) -> list[str]:
    """The command for the VM."""
    command = ["sudo", "journalctl", "--unit=spot-agent", "--output=short-iso-precise", f"--lines={wanted.lines}"]
    command += ["--no-pager", *(["--follow"] if follow else [])]
    command += [f"--priority={wanted.priority}"] if wanted.priority else []
    command += [f"--since=-{wanted.since}"] if wanted.since else []
    return command + [f"{name}={value}" for name, value in wanted.matches]


def gcloud_logging(wanted: Wanted, *, deployment: Deployment) -> list[str]:
    """The command for the operator's machine; what VMs that are gone have said is there too."""
    runs = [run.run_id for run in deployment.run.experiments()] or [deployment.run.run_id]
    terms = ['resource.type="gce_instance"', f"jsonPayload.RUN_ID=({' OR '.join(_quoted(run) for run in runs)})"]
    terms += [f"severity>={SEVERITIES[wanted.priority]}"] if wanted.priority else []
    terms += [f"jsonPayload.{name}={_quoted(value)}" for name, value in wanted.matches]
    return [
        "gcloud",
        "logging",
        "read",
        " AND ".join(terms),
        f"--project={deployment.project}",
        f"--limit={wanted.lines}",
        f"--freshness={wanted.since or '7d'}",
        "--order=desc",
        "--format=value(timestamp,resource.labels.instance_id,jsonPayload.MESSAGE)",
    ]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
