"""Phases: what a trainer does now, since when, and how long each of them may take."""

from __future__ import annotations

from spot_training.protocol.messages import Phase

from agent.trainer.host import Host


class Phases:
    """`now`: the phase it is in, since `since`. In training it is judged by `last_beat`, in all others as a whole."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.now: Phase = "starting"
        self.since = self.last_beat = host.clock()

    def enter(self, phase: Phase) -> None:
        if phase != self.now:
            self.now, self.since = phase, self._host.clock()
            self.tell()

    def beat(self) -> None:
        self.last_beat = self._host.clock()

    def tell(self) -> None:
        limit = None if self.now == "training" else self.limit_s(self.now)
        self._host.health.set_phase(self.now, limit_s=limit)

    def began(self, age_s: float, *, spare_s: float) -> None:
        """It began `age_s` before it was found: its start is no longer than anybody's, but `spare_s` are left."""
        latest = self._host.clock() - self.limit_s("starting") + spare_s
        self.since = min(self.since, max(self.since - age_s, latest))

    def over(self) -> bool:
        """Whether it takes too long."""
        now = self._host.clock()
        return now - (self.last_beat if self.now == "training" else self.since) > self.limit_s(self.now)

    def limit_s(self, phase: Phase) -> float:
        """Seconds that a phase may take; in training, a step's heartbeat."""
        supervision = self._host.run.supervision
        limits: dict[Phase, float] = {
            "starting": supervision.start_timeout,
            "restoring": supervision.restore_timeout,
            "training": supervision.hang_timeout,
            "evaluating": supervision.evaluate_timeout,
            "finishing": supervision.finish_timeout,
        }
        return limits[phase]
