"""Waiting for the run that is validated, within bounds of time and money, and the verdict on what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.store import StoreError
from infra.local.asked_to_stop import AskedToStop
from infra.operate.board import Board
from infra.operate.outcome import Outcome, read_outcome
from infra.operate.status.standing import Reader, Standing
from infra.operate.validation.launches import Launch, NotCleanedUp, NotLaunched
from infra.operate.validation.thresholds import Held, Threshold, hold

Verdict = Literal[
    "passed", "not launched", "gave up", "failed", "missing metric", "timeout", "max cost", "stopped", "not cleaned up"
]
STATUS: Mapping[Verdict, int] = {
    "passed": 0,
    "not launched": 1,
    "not cleaned up": 1,
    "gave up": 3,
    "failed": 6,
    "missing metric": 7,
    "timeout": 8,
    "max cost": 9,
}
"""Exit statuses; of one that was stopped it is the signal's."""
_LOOK_S = 0.2


@dataclass(frozen=True)
class Validated:
    """`why`: in words, where there is more to say than the thresholds do."""

    verdict: Verdict
    held: Sequence[Held] = ()
    outcome: Outcome | None = None
    why: str = ""
    seconds: float = 0.0


@dataclass
class Validation:
    """`timeout` in seconds, from the beginning of the launch."""

    launch: Launch
    run_id: str
    thresholds: Mapping[str, Threshold]
    timeout: float
    asked: AskedToStop
    board: Board
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def validate(self) -> Validated:
        """Begin the run, wait for it, judge it; what was begun is taken away, whatever comes."""
        begun = self.clock()
        verdict: Verdict = "stopped"
        try:
            verdict, why = self._train(begun)
        except StoreError as error:
            verdict, why = "not launched", f"its bucket can't be read: {error}"
        finally:
            left = self._clean_up(complete=verdict == "passed")
        took = self.clock() - begun
        try:
            outcome = read_outcome(self.launch.store(), self.run_id)
        except StoreError as error:
            return Validated("not launched", why="; ".join(filter(None, (why, left, str(error)))), seconds=took)
        if verdict == "stopped" and outcome.complete:
            verdict, why = "passed", ""  # it came to its end meanwhile
        held = hold(self.thresholds, outcome.series) if verdict == "passed" else []
        if any(one.verdict == "missing" for one in held):
            verdict = "missing metric"
        if any(one.verdict == "failed" for one in held):
            verdict = "failed"
        if left:
            verdict, why = "not cleaned up", f"{why}; {left}" if why else left
        return Validated(verdict, held, outcome, why, took)

    def _train(self, begun: float) -> tuple[Verdict, str]:
        """To its end. "passed": it is complete, and its metrics are to be looked at."""
        earlier = Reader(self.launch.store(), self.run_id).standing()
        if earlier.state == "complete":  # of the same commit
            return "passed", ""
        try:
            self.launch.begin(self.asked)
        except NotLaunched as error:
            return "not launched", str(error)
        reader, next_look = Reader(self.launch.store(), self.run_id), self.clock()
        while not self.asked:
            ended = self.launch.ended()  # before the look: what it wrote last is seen by it
            if ended is not None or self.clock() >= next_look:
                next_look = self.clock() + self.launch.look_s
                standing = self._look(reader)
                if standing and _newest(standing) != _newest(earlier) and (end := _end_of(standing)):
                    return end
                if ended is not None:
                    return "gave up", ended
            if self.clock() >= begun + self.timeout:
                return "timeout", f"it was not complete after {self.timeout:g} s"
            self.sleep(_LOOK_S)
        return "stopped", ""

    def _look(self, reader: Reader) -> Standing | None:
        try:
            standing = reader.standing()
        except StoreError as error:  # it may pass, as does what is being written just now; the bound of time does not
            if error.may_pass:
                self.board.say(str(error))
            return None
        self.board.note(self.run_id, standing.state, standing)
        return standing

    def _clean_up(self, *, complete: bool) -> str:
        try:
            self.launch.clean_up(complete=complete)
        except NotCleanedUp as error:
            return str(error)
        return ""


def _newest(standing: Standing) -> tuple[object, ...]:
    """What changes with everything that happens to a run."""
    last = standing.incidents[-1]["at_utc"] if standing.incidents else None
    return standing.state, standing.attempt, standing.step, last


def _end_of(standing: Standing) -> tuple[Verdict, str] | None:
    if standing.state == "complete":
        return "passed", ""
    if standing.state == "gave up":
        last = standing.incidents[-1]
        return "max cost" if last["kind"] == "max_cost" else "gave up", str(last.get("detail") or last["kind"])
    return None
