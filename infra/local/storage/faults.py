"""What goes wrong on request: rules that strike matching requests, and outages that strike all."""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

FaultKind = Literal["status", "reset", "stall", "truncate", "flip", "wrong_checksum"]
OutageMode = Literal["reset", "unavailable", "blackhole"]

# No stall or outage holds a thread longer than this.
_LONGEST_S = 600.0


class Fault(BaseModel):
    """One rule: it strikes matching requests `count` times (null: always), each with `probability`.

    status          answer `status` instead
    reset           reset the connection
    stall           let no byte through for `seconds`, then go on
    truncate        (downloads) end the connection early
    flip            turn the bits of one byte on its way (so an upload is stored damaged, a stored object stays whole)
    wrong_checksum  answer with a CRC32C and MD5 that are not the object's

    With `after_done`, status, reset and stall strike when the request is carried out: only its answer suffers.

    `after_bytes` says where in the moving bytes reset, stall, truncate and flip strike: the request's body if it has
    one, else the answer's. `action` is create, get, list, delete, update, or buckets.get and so on; `method` and
    `name` are regular expressions, `name` is searched for in the object's name (a listing's prefix).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    method: str = ".*"
    action: str = ".*"
    name: str = ""
    count: int | None = Field(default=1, ge=1)
    probability: float = Field(default=1.0, gt=0, le=1)
    status: int = Field(default=503, ge=400, le=599)
    seconds: float = Field(default=1.0, ge=0, le=_LONGEST_S)
    after_bytes: int = Field(default=0, ge=0)
    after_done: bool = False

    @field_validator("method", "action", "name")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {value!r}: {error}") from None
        return value

    @property
    def moves_with_body(self) -> bool:
        """True if it strikes the bytes of a request's body where there is one."""
        return self.kind in ("reset", "stall", "flip") and not self.after_done

    def matches(self, method: str, action: str, name: str) -> bool:
        return bool(
            re.fullmatch(self.method, method) and re.fullmatch(self.action, action) and re.search(self.name, name)
        )


class Outage(BaseModel):
    """All requests fail for `seconds` (null: until ended): connections reset, 503, or no byte moves at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: OutageMode = "reset"
    seconds: float | None = Field(default=None, gt=0)


class Faults:
    """The rules in force. Thread-safe."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._rules: dict[int, Fault] = {}
        self._left: dict[int, int] = {}
        self._era = 0
        self._outage: OutageMode | None = None
        self._outage_until = 0.0

    def add(self, fault: Fault) -> int:
        with self._changed:
            number = next(self._ids)
            self._rules[number] = fault
            if fault.count is not None:
                self._left[number] = fault.count
            return number

    def pick(self, method: str, action: str, name: str) -> Fault | None:
        """The first rule that strikes this request, used up by one."""
        if not self._rules:
            return None
        with self._changed:
            for number, fault in self._rules.items():
                if not fault.matches(method, action, name) or self._chance() >= fault.probability:
                    continue
                if fault.count is not None:
                    self._left[number] -= 1
                    if self._left[number] == 0:
                        del self._rules[number], self._left[number]
                return fault
        return None

    def clear(self) -> None:
        """Forget all rules, end the outage and let go of everything that stalls."""
        with self._changed:
            self._rules.clear()
            self._left.clear()
            self._outage = None
            self._era += 1
            self._changed.notify_all()

    def pending(self) -> list[Fault]:
        """Rules that can still strike, with the count they have left."""
        with self._changed:
            return [fault.model_copy(update={"count": self._left.get(number)}) for number, fault in self._rules.items()]

    def begin_outage(self, outage: Outage) -> None:
        with self._changed:
            self._outage = outage.mode
            self._outage_until = self._clock() + (_LONGEST_S if outage.seconds is None else outage.seconds)
            self._changed.notify_all()

    def end_outage(self) -> None:
        with self._changed:
            self._outage = None
            self._changed.notify_all()

    def outage(self) -> OutageMode | None:
        """The outage in force now, if any."""
        mode = self._outage
        if mode is not None and self._clock() >= self._outage_until:
            return None
        return mode

    def stall(self, seconds: float) -> None:
        """Wait for `seconds`, or until the faults are cleared."""
        with self._changed:
            era = self._era
            self._changed.wait_for(lambda: self._era != era, timeout=seconds)

    def wait_out_blackhole(self) -> None:
        """Wait until no blackhole is in force."""
        with self._changed:
            while self.outage() == "blackhole":
                self._changed.wait(timeout=max(0.0, self._outage_until - self._clock()))
