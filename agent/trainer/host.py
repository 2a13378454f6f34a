"""Host: what every attempt of one agent is given, and none of them changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.checkpoint.saver import Saver
from agent.config import RunConfig
from agent.config.legs import Leg
from agent.program.maker import Maker
from agent.telemetry.health import Health
from agent.telemetry.ledger import Ledger

SOCKET = "agent.sock"


@dataclass(frozen=True)
class Host:
    """This VM and the run on it. `maker` has its program ready; `unit`: the systemd service we are, which trainers
    must outlive; `clock` gives monotonic seconds; `leg`: the stages that this VM trains, where others have others."""

    run: RunConfig
    run_file: Path
    state_dir: Path
    maker: Maker
    unit: str | None
    saver: Saver
    health: Health
    ledger: Ledger
    clock: Callable[[], float]
    leg: Leg | None = None

    @property
    def log_file(self) -> Path:
        return self.state_dir / "trainer.log"

    @property
    def record_file(self) -> Path:
        return self.state_dir / "trainer.json"
