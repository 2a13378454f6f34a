"""The run's dashboard: what was taken away, what it cost, and what the agent says."""

from __future__ import annotations

import json
from typing import Any

from cdktn_provider_google.monitoring_dashboard import MonitoringDashboard
from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.observability import metrics
from infra.stacks.observability.observed import Observed
from infra.stacks.observability.queries import Queries

_COLUMNS = 48
_HEIGHT = 16


def define_dashboard(scope: Construct, observed: Observed) -> None:
    MonitoringDashboard(scope, "dashboard", dashboard_json=json.dumps(dashboard(observed), indent=1))


def dashboard(observed: Observed) -> dict[str, Any]:
    """Google's `Dashboard` resource, as its API takes it."""
    queries, window = Queries(observed=observed), observed.shortest_window_s
    widgets = [
        _figure("Goodput, last 6 h", f"1 - clamp_max({queries.total(metrics.SECONDS_LOST, '6h')} / 21600, 1)"),
        _figure("Preemptions, last 24 h", queries.count(metrics.PREEMPTIONS, "24h")),
        _figure("Steps lost, last 24 h", queries.total(metrics.STEPS_LOST, "24h")),
        _figure("VMs now", queries.vms),
        _chart("Preemptions and other interruptions an hour", {"{kind}": queries.split(metrics.STEPS_LOST, "1h")}),
        _chart("Steps to train again, an hour", {"steps": queries.total(metrics.STEPS_LOST, "1h")}),
        _chart(
            "Save time against the window",
            {
                "emergency, longest": queries.quantile(metrics.SAVE_SECONDS, 1, "1h", reason="emergency"),
                "periodic, median": queries.quantile(metrics.SAVE_SECONDS, 0.5, "1h", reason="cadence"),
                "left of the window, least": queries.quantile(metrics.WINDOW_LEFT_SECONDS, 0, "1h"),
            },
            unit="s",
            line=(f"the window: {window:g} s", window),
        ),
        _chart(
            "Restore time",
            {
                "median": queries.quantile(metrics.RESTORE_SECONDS, 0.5, "6h"),
                "longest": queries.quantile(metrics.RESTORE_SECONDS, 1, "6h"),
            },
            unit="s",
        ),
        _chart("Seconds lost to interruptions, an hour", {"lost": queries.total(metrics.SECONDS_LOST, "1h")}, unit="s"),
        _chart(
            "VMs, and trainer failures an hour",
            {"VMs": queries.vms, "failures": queries.count(metrics.TRAINER_FAILURES, "1h")},
        ),
        _chart("VM hours of the last day", {"VM hours": f"sum_over_time({queries.vms}[24h:10m]) / 6"}),
        _text("Costs", _costs(observed.deployment)),
        {
            "title": "The agent's journal",
            "logsPanel": {
                "filter": f'resource.type="gce_instance" AND {metrics.one_of("run_id", observed.run_ids)} '
                'AND jsonPayload.EVENT!="trainer_output"',
                "resourceNames": [f"projects/{observed.deployment.project}"],
            },
        },
    ]
    return {
        "displayName": f"spot-training: {observed.name}",
        "mosaicLayout": {"columns": _COLUMNS, "tiles": _laid_out(widgets)},
    }


def _laid_out(widgets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From left to right, then down: four figures a line, two charts a line, logs over the whole width."""
    tiles: list[dict[str, Any]] = []
    x = y = lowest = 0
    for widget in widgets:
        width = _COLUMNS // 4 if "scorecard" in widget else _COLUMNS if "logsPanel" in widget else _COLUMNS // 2
        height = _HEIGHT // 2 if "scorecard" in widget else _HEIGHT
        if x + width > _COLUMNS:
            x, y = 0, lowest
        tiles.append({"xPos": x, "yPos": y, "width": width, "height": height, "widget": widget})
        x, lowest = x + width, max(lowest, y + height)
    return tiles


def _figure(title: str, query: str) -> dict[str, Any]:
    return {"title": title, "scorecard": {"timeSeriesQuery": {"prometheusQuery": query}}}


def _chart(
    title: str, queries: dict[str, str], *, unit: str = "1", line: tuple[str, float] | None = None
) -> dict[str, Any]:
    data = [
        {
            "plotType": "LINE",
            "targetAxis": "Y1",
            "legendTemplate": legend,
            "timeSeriesQuery": {"prometheusQuery": query, "unitOverride": unit},
        }
        for legend, query in queries.items()
    ]
    lines = [{"label": line[0], "value": line[1], "targetAxis": "Y1"}] if line else []
    return {"title": title, "xyChart": {"dataSets": data, "thresholds": lines, "yAxis": {"scale": "LINEAR"}}}


def _text(title: str, content: str) -> dict[str, Any]:
    return {"title": title, "text": {"content": content, "format": "MARKDOWN"}}


def _costs(deployment: Deployment) -> str:
    run, labels = deployment.run, deployment.labels
    cap = run.price_cap
    told = [
        f"{run.machine.vms} x `{run.machine.type}`, {run.machine.provisioning}, {deployment.region}.",
        f"VM hours of the last day times the cap of {cap.max_hourly_usd:g} USD an hour is the most that they cost."
        if cap
        else "The run file has no `price_cap`.",
        "What Google bills: Billing, Reports, filter by label "
        + " and ".join(f"`{key}: {value}`" for key, value in labels.items())
        + "; it shows a day later.",
        "A run that is complete, or gave up, has no VM: only its objects in the bucket cost then.",
    ]
    return "\n\n".join(told)
