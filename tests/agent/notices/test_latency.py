"""The latency that the README states."""

from __future__ import annotations

import pytest

from infra.bench.notice import measure


@pytest.mark.slow
def test_a_notice_reaches_the_agent_in_under_10_ms_at_the_median_and_50_ms_at_the_99th_percentile() -> None:
    result = measure(notices=200, polls=2)
    assert result["long_poll"]["p50_ms"] < 10
    assert result["long_poll"]["p99_ms"] < 50
    assert result["median_ratio"] > 5
