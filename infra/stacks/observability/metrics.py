"""Log-based metrics: figures that Cloud Logging takes from the agent's journal, field by field.

The agent sends its journal there as it is on the VM (agent/telemetry/cloud_log.py): `jsonPayload.EVENT="committed"`,
`jsonPayload.DURABLE_S="4.2"`. All values are text; Cloud Logging turns what an extractor gives it into a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cdktn_provider_google.logging_metric import (
    LoggingMetric,
    LoggingMetricBucketOptions,
    LoggingMetricBucketOptionsExponentialBuckets,
    LoggingMetricMetricDescriptor,
    LoggingMetricMetricDescriptorLabels,
)
from constructs import Construct

from infra.stacks.observability.observed import Observed

FAILURES = ("crash", "out_of_memory", "hang")
UNSAVED = ("not_committed", "not_staged", "save_failed")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Buckets of a distribution: `count` of them, the first up to `smallest`, each `growth` times the one before."""

    smallest: float
    growth: float
    count: int


SECONDS = Scale(smallest=0.05, growth=1.5, count=32)  # to 6 hours
STEPS = Scale(smallest=1, growth=1.6, count=24)  # to 80,000 steps


@dataclass(frozen=True, kw_only=True)
class JournalMetric:
    """A figure of `events` of the agent whose fields are `where` (field: the values that count).

    Without `value` it counts records; with it, it is a distribution of that field, or of `key` in the JSON that the
    field holds. `label` splits it by a field. Fields are named as in the agent's code, in small letters.
    """

    name: str
    events: tuple[str, ...]
    about: str
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    value: str | None = None
    key: str | None = None
    label: str | None = None
    scale: Scale = SECONDS

    @property
    def unit(self) -> str:
        return "s" if self.value and self.scale is SECONDS else "1"

    def full_name(self, run_id: str) -> str:
        """The metric's name in the project; its type is logging.googleapis.com/user/ and this."""
        return f"spot/{run_id}/{self.name}"

    def log_filter(self, run_ids: tuple[str, ...]) -> str:
        """In Cloud Logging's query language."""
        terms = ['resource.type="gce_instance"', one_of("run_id", run_ids), one_of("event", self.events)]
        return " AND ".join([*terms, *(one_of(name, values) for name, values in self.where.items())])

    @property
    def extractor(self) -> str | None:
        if self.value is None:
            return None
        if self.key is None:
            return f"EXTRACT({_payload(self.value)})"
        return f'REGEXP_EXTRACT({_payload(self.value)}, "\\"{self.key}\\": ([0-9.e+-]+)")'


PREEMPTIONS = JournalMetric(
    name="preemptions",
    events=("window_used",),
    where={"kind": ("preempted",)},
    about="VMs that were taken away after a notice",
)
STEPS_LOST = JournalMetric(
    name="steps_lost",
    events=("window_used", "incident"),
    value="steps_lost",
    label="kind",
    scale=STEPS,
    about="Steps to train again after an interruption, by its kind",
)
SAVE_SECONDS = JournalMetric(
    name="save_seconds",
    events=("committed",),
    value="durable_s",
    label="reason",
    about="From a save's first byte to its commit in the bucket, by the reason for it",
)
WINDOW_LEFT_SECONDS = JournalMetric(
    name="window_left_seconds",
    events=("window_used",),
    value="left_s",
    label="kind",
    about="What was left of the window when the state was safe",
)
UNSAVED_WINDOWS = JournalMetric(
    name="unsaved",
    events=UNSAVED,
    label="event",
    about="Saves that came to nothing: past the deadline, without an answer, or failed",
)
RESTORE_SECONDS = JournalMetric(
    name="restore_seconds",
    events=("resumed",),
    value="phases_s",
    key="restored",
    label="source",
    about="From the start of an attempt to the state being back, by where it came from",
)
SECONDS_LOST = JournalMetric(
    name="seconds_lost",
    events=("resumed",),
    value="lost_s",
    label="source",
    about="From the save that a run came back from to its next step: what an interruption cost, all told",
)
TRAINER_FAILURES = JournalMetric(
    name="trainer_failures",
    events=("trainer_ended",),
    where={"cause": FAILURES},
    label="cause",
    about="Trainers that crashed, hung or ran out of memory",
)
GAVE_UP = JournalMetric(name="gave_up", events=("gave_up",), about="Runs that the agent does not start again by itself")
STARTS = JournalMetric(name="starts", events=("agent_started",), about="Starts of the agent: one a VM's boot, at least")
ENDED = JournalMetric(name="ended", events=("complete", "gave_up"), about="Runs that are over, one way or the other")

METRICS = (
    PREEMPTIONS,
    STEPS_LOST,
    SAVE_SECONDS,
    WINDOW_LEFT_SECONDS,
    UNSAVED_WINDOWS,
    RESTORE_SECONDS,
    SECONDS_LOST,
    TRAINER_FAILURES,
    GAVE_UP,
    STARTS,
    ENDED,
)


def define_metrics(scope: Construct, observed: Observed) -> None:
    """All of `METRICS`."""
    for metric in METRICS:
        _define(scope, metric, observed=observed)


def _define(scope: Construct, metric: JournalMetric, *, observed: Observed) -> None:
    labels = (
        [LoggingMetricMetricDescriptorLabels(key=metric.label, value_type="STRING", description="as in the journal")]
        if metric.label
        else None
    )
    scale = metric.scale
    LoggingMetric(
        scope,
        f"metric-{metric.name}",
        name=metric.full_name(observed.name),
        description=f"Run {observed.name}. {metric.about}.",
        filter=metric.log_filter(observed.run_ids),
        value_extractor=metric.extractor,
        label_extractors={metric.label: f"EXTRACT({_payload(metric.label)})"} if metric.label else None,
        metric_descriptor=LoggingMetricMetricDescriptor(
            metric_kind="DELTA",
            value_type="DISTRIBUTION" if metric.value else "INT64",
            unit=metric.unit,
            labels=labels,
        ),
        bucket_options=LoggingMetricBucketOptions(
            exponential_buckets=LoggingMetricBucketOptionsExponentialBuckets(
                num_finite_buckets=scale.count, growth_factor=scale.growth, scale=scale.smallest
            )
        )
        if metric.value
        else None,
    )


def _payload(name: str) -> str:
    return f"jsonPayload.{name.upper()}"


def one_of(name: str, values: tuple[str, ...]) -> str:
    """The term of a filter that holds where a field of the journal has one of these values."""
    quoted = " OR ".join(f'"{value}"' for value in values)
    return f"{_payload(name)}={quoted}" if len(values) == 1 else f"{_payload(name)}=({quoted})"
