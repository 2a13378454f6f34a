"""What the agent learns of its VM, and what it says where that won't do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_a_proxy_that_cannot_be_used_is_said_at_the_start_in_words(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "agent.start", "run", "workloads/llm/production.yaml", "--log", "json"]
    environment = {
        "PATH": os.environ["PATH"], "NO_GCE_CHECK": "true", "HTTPS_PROXY": "socks5://user:secret@proxy:1080",
    }  # fmt: skip
    done = subprocess.run(
        [*command, "--state-dir", str(tmp_path), "--health-port", "0"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "vm_unfit" in done.stdout and "put storage.googleapis.com into NO_PROXY" in done.stdout
    assert "secret" not in done.stdout + done.stderr and "Traceback" not in done.stderr
