"""PromQL over the metrics of one run, for dashboard and alerts.

Cloud Monitoring reads its own metrics in PromQL under names made of letters, digits and `_`
(cloud.google.com/monitoring/promql/promql-mapping); log-based ones need the resource they come from beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infra.stacks.observability.metrics import JournalMetric
from infra.stacks.observability.observed import Observed


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries about what is observed. A `window` is PromQL's: "30m"."""

    observed: Observed

    def count(self, metric: JournalMetric, window: str, *, offset: str = "0s", **labels: str) -> str:
        """Records in the last `window`, or in one that ended `offset` ago; 0 where there was none."""
        suffix = "_count" if metric.value else ""
        then = "" if offset == "0s" else f" offset {offset}"
        return f"(sum(increase({self._series(metric, suffix, labels)}[{window}]{then})) or vector(0))"

    def total(self, metric: JournalMetric, window: str, **labels: str) -> str:
        """The sum of the values recorded in the last `window`; 0 where there was none."""
        return f"(sum(increase({self._series(metric, '_sum', labels)}[{window}])) or vector(0))"

    def split(self, metric: JournalMetric, window: str) -> str:
        """Records in the last `window` by the metric's label."""
        assert metric.label
        suffix = "_count" if metric.value else ""
        return f"sum by ({metric.label}) (increase({self._series(metric, suffix, {})}[{window}]))"

    def quantile(self, metric: JournalMetric, quantile: float, window: str, **labels: str) -> str:
        """A quantile of the values recorded in the last `window`; nothing where there was none."""
        series = self._series(metric, "_bucket", labels)
        return f"histogram_quantile({quantile}, sum by (le) (increase({series}[{window}])))"

    @property
    def vms(self) -> str:
        """How many VMs the run's groups have now."""
        named = "|".join(group.name for group in self.observed.groups)
        labels = f'monitored_resource="instance_group", instance_group_name=~"{named}"'
        return f"(sum(compute_googleapis_com:instance_group_size{{{labels}}}) or vector(0))"

    def _series(self, metric: JournalMetric, suffix: str, labels: dict[str, str]) -> str:
        name = re.sub(r"[^A-Za-z0-9]", "_", f"user/{metric.full_name(self.observed.name)}")
        wanted = {"monitored_resource": "gce_instance"} | labels
        listed = ", ".join(f'{key}="{value}"' for key, value in wanted.items())
        return f"logging_googleapis_com:{name}{suffix}{{{listed}}}"
