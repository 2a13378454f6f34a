"""What the agent learns of its VM."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from agent.main import warning_of
from agent.notices.metadata import Machine


@pytest.mark.parametrize(("told", "seconds"), [("120 s", 120.0), (None, 30.0), ("soon", 30.0), ("", 30.0)])
def test_a_notice_that_can_not_be_read_is_told_and_ends_nothing(told: str | None, seconds: float) -> None:
    attributes = {} if told is None else {"spot-notice": told}
    with capture_logs() as said:
        assert warning_of(Machine("vm", "zone", "1", {}, attributes), 30.0) == seconds
    assert [event["event"] for event in said] == (["notice_unreadable"] if told in ("soon", "") else [])
