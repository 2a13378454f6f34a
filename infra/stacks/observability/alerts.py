"""What somebody should be told of at once: each alert says what it means, what to do, and the command to type.

Conditions are PromQL, because a log-based metric does not exist for Cloud Monitoring until minutes after it was made,
and only these can be made without it (`disable_metric_validation`).
"""

from __future__ import annotations

from dataclasses import dataclass

from cdktn_provider_google.monitoring_alert_policy import (
    MonitoringAlertPolicy,
    MonitoringAlertPolicyAlertStrategy,
    MonitoringAlertPolicyConditions,
    MonitoringAlertPolicyConditionsConditionPrometheusQueryLanguage,
    MonitoringAlertPolicyDocumentation,
)
from cdktn_provider_google.monitoring_notification_channel import MonitoringNotificationChannel
from constructs import Construct

from agent.config import RunConfig
from agent.config.legs import cadence_at, ends_of
from infra.stacks.fleet.metadata import FAILED_BOOTS
from infra.stacks.fleet.plan import Group
from infra.stacks.observability import metrics
from infra.stacks.observability.observed import Observed
from infra.stacks.observability.queries import Queries

_LONGEST_CADENCE_S = 1800.0  # of `every: auto` (agent/run/window.py)
_NO_PROGRESS_S = 3600.0  # at least: a boot, a restore and a save come first
_AWAY_S = 1800
_TOLD_GROUPS = 3


@dataclass(frozen=True, kw_only=True)
class Alert:
    """`conditions`: name and query, any of which alone is reason enough once it has held for `duration_s`."""

    name: str
    title: str
    severity: str
    conditions: tuple[tuple[str, str], ...]
    meaning: str
    remedy: str
    commands: tuple[str, ...]
    duration_s: int = 0


def define_alerts(scope: Construct, observed: Observed) -> list[MonitoringNotificationChannel]:
    """The alerts, and a channel for each of cloud.alert_emails; returns the channels."""
    deployment = observed.deployment
    channels = [
        MonitoringNotificationChannel(
            scope,
            f"email-{place}",
            type="email",
            display_name=f"spot-training {deployment.run.run_id}: {email}",
            labels={"email_address": email},
            user_labels=deployment.labels,
        )
        for place, email in enumerate(deployment.cloud.alert_emails)
    ]
    for alert in alerts(observed):
        _define(scope, alert, run_id=deployment.run.run_id, labels=deployment.labels, channels=channels)
    return channels


def alerts(observed: Observed) -> tuple[Alert, ...]:
    run, queries = observed.deployment.run, Queries(observed=observed)
    silence = _promql(no_progress_seconds(run))
    window = observed.shortest_window_s
    present = f"sum_over_time(({queries.vms} > bool 0)[30m:1m])"
    busy = f"{queries.count(metrics.STARTS, '23h')} > 0 and on() {queries.count(metrics.ENDED, '23h')} == 0"
    slowest_save = queries.quantile(metrics.SAVE_SECONDS, 1, "1h", reason="emergency")
    return (
        Alert(
            name="crash-loop",
            title="the trainer crashes again and again, or the agent gave up",
            severity="CRITICAL",
            conditions=(
                ("the agent gave up", f"{queries.count(metrics.GAVE_UP, '15m')} > 0"),
                ("the trainer fails often", f"{queries.count(metrics.TRAINER_FAILURES, '30m')} >= 3"),
            ),
            meaning=f"After {run.supervision.crash_limit} failures in a row without a step done the agent stops the "
            "run, says why, and lets its VM go. The newest checkpoint is safe.",
            remedy="Read the trainer's last lines, mend the cause, deploy again: the run goes on where it was.",
            commands=("spot logs RUN.yaml --cloud --event gave_up", "spot logs RUN.yaml --cloud --event trainer_ended"),
        ),
        Alert(
            name="no-agent",
            title="VMs are there, and no agent has started",
            severity="CRITICAL",
            conditions=(
                (
                    "VMs came, and no agent",
                    # A group that makes new VMs for ever is at zero each time: what counts is how long it had some. One
                    # whose VM was taken away after hours of training has minutes to come back.
                    f"{present} >= 20 and on() min_over_time({queries.vms}[90m:1m]) == 0 "
                    f"and on() {queries.count(metrics.STARTS, '90m')} == 0",
                ),
                (
                    "VMs, and no word of an agent for a day",
                    f"{present} >= 20 and on() {queries.count(metrics.STARTS, '23h')} == 0 "
                    f"and on() {queries.count(metrics.SAVE_SECONDS, '23h')} == 0",
                ),
            ),
            meaning="The run's VMs have been there for 30 minutes together, are paid for, and come to no agent: "
            "something stops them on their way up. "
            f"After {FAILED_BOOTS} such boots of each VM in a row the group goes to zero.",
            remedy="Read which stage failed and why: a grant, the bundle, a mirror that is away. Mend it, deploy, and "
            "give the VMs back with spot start.",
            commands=(
                "spot logs RUN.yaml --cloud --event boot_failed",
                "spot logs RUN.yaml --cloud --event boot_gave_up",
                "spot doctor RUN.yaml",
            ),
            duration_s=900,
        ),
        Alert(
            name="no-progress",
            title="VMs are there, but no checkpoint is",
            severity="ERROR",
            conditions=(
                (
                    f"no commit in {silence}",
                    f"{queries.count(metrics.SAVE_SECONDS, silence)} == 0 and on() "
                    f"min_over_time({queries.vms}[{silence}:1m]) > 0",
                ),
            ),
            meaning=f"The run's VMs have been there for {silence}, are paid for, and have committed nothing.",
            remedy="See whether it still restores, hangs, or can't reach the bucket.",
            commands=("spot logs RUN.yaml --priority warning", "spot ssh RUN.yaml -- curl -s localhost:9620/healthz"),
            duration_s=300,
        ),
        Alert(
            name="save-misses-window",
            title="a save does not fit its window",
            severity="ERROR",
            conditions=(
                ("a save in a window came to nothing", f"{queries.count(metrics.UNSAVED_WINDOWS, '15m')} > 0"),
                (f"a save took most of {window:g} s", f"{slowest_save} > {0.8 * window:g}"),
            ),
            meaning=f"From the notice on there are {window:g} s to get the state into the bucket. A save that takes "
            "longer is lost, and the run goes back to the checkpoint before it.",
            remedy="Write machine.notice: 120 s, save less (frozen tensors need not be saved again), "
            "or save more often: checkpoint.every. Look whether the bucket is in the VMs' region.",
            commands=(
                "spot logs RUN.yaml --event window_used",
                "spot logs RUN.yaml --event committed",
                "spot ssh RUN.yaml -- spot drill",
            ),
        ),
        Alert(
            name="vm-not-back",
            title="a VM does not come back",
            severity="WARNING",
            conditions=(
                ("fewer VMs than the run needs", f"{queries.vms} < {observed.fewest_vms} and on() {busy}"),
                (
                    "VMs, but no run",
                    f"{queries.vms} > 0 and on() {queries.count(metrics.PREEMPTIONS, '1h', offset='30m')} > 0 "
                    f"and on() {queries.count(metrics.STARTS, '90m')} == 0",
                ),
            ),
            meaning=f"For {_AWAY_S // 60} min the run has had fewer VMs than it needs. Mostly the zones have no such "
            "Spot machine to give just now; the group goes on asking. Nothing is lost but time.",
            remedy="Ask the group why. Add zones, another machine type, or take standard VMs for a while: "
            "machine.provisioning: standard.",
            commands=(
                *(_errors_of(group, project=observed.deployment.project) for group in observed.groups[:_TOLD_GROUPS]),
                "spot doctor RUN.yaml",
            ),
            duration_s=_AWAY_S,
        ),
    )


def no_progress_seconds(run: RunConfig) -> float:
    """How long no commit is normal. A cadence in steps says nothing of time: a day's is the most that can be asked."""
    cadences = {cadence_at(run, end - 1) for end in ends_of(run).values()} or {run.checkpoint.every}
    if any(every.steps is not None for every in cadences):
        return 6 * 3600.0
    cadence = max(_LONGEST_CADENCE_S if every.seconds is None else every.seconds for every in cadences)
    return min(max(_NO_PROGRESS_S, 3 * cadence), 23 * 3600.0)


def _errors_of(group: Group, *, project: str) -> str:
    where = f"--zone {group.zone}" if group.zone else f"--region {group.machine.region}"
    return f"gcloud compute instance-groups managed list-errors {group.name} {where} --project {project}"


def _define(
    scope: Construct,
    alert: Alert,
    *,
    run_id: str,
    labels: dict[str, str],
    channels: list[MonitoringNotificationChannel],
) -> None:
    commands = "\n".join(f"    {command}" for command in alert.commands)
    MonitoringAlertPolicy(
        scope,
        f"alert-{alert.name}",
        display_name=f"{run_id}: {alert.title}",
        combiner="OR",
        severity=alert.severity,
        conditions=[
            MonitoringAlertPolicyConditions(
                display_name=name,
                condition_prometheus_query_language=MonitoringAlertPolicyConditionsConditionPrometheusQueryLanguage(
                    query=query,
                    duration=f"{alert.duration_s}s",
                    evaluation_interval="60s",
                    disable_metric_validation=True,
                    rule_group=run_id,
                    alert_rule=alert.name.replace("-", "_"),
                ),
            )
            for name, query in alert.conditions
        ],
        documentation=MonitoringAlertPolicyDocumentation(
            subject=f"{run_id}: {alert.title}",
            mime_type="text/markdown",
            content=f"**What it means.** {alert.meaning}\n\n**What to do.** {alert.remedy}\n\n{commands}\n",
        ),
        alert_strategy=MonitoringAlertPolicyAlertStrategy(auto_close="3600s"),
        notification_channels=[channel.name for channel in channels],
        user_labels=labels,
    )


def _promql(seconds: float) -> str:
    return f"{int(seconds // 60)}m"
