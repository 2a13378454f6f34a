"""A script of events: what happens to a group's VMs, and when. Written by hand in YAML, or drawn from rates.

- {at: 2 h, do: preempt, notice: 120 s}
- {at: 5 h, do: stock_out, for: 90 min}
- {at: 5 h 1 min, do: power_cut}
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from agent.config import parse_seconds

Kind = Literal["preempt", "power_cut", "stock_out", "zone_outage", "trainer_crash", "bucket_away"]
LASTING: Mapping[str, float] = {"stock_out": 1200.0, "zone_outage": 1800.0, "bucket_away": 3.0}
"""What goes on for a while: for how many seconds in the mean, where it is drawn."""
_DAY_S = 86400.0


def _seconds(value: object) -> object:
    return parse_seconds(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""Seconds, or a number with a unit: "90 min"."""


class ScriptError(ValueError):
    """The script can't be meant; the text says where and why."""


class Happening(BaseModel):
    """`at` seconds after the start, `do` something to the VM at place `vm` of the group.

    `lasting`, in a file `for`: how long a stock-out, an outage of the zone or of the bucket goes on. `notice`: seconds
    from a preemption's notice to ACPI G2, where it is not as the VM's template says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    at: Duration
    do: Kind
    vm: Annotated[int, Field(ge=0)] = 0
    notice: Duration | None = None
    lasting: Annotated[Duration | None, Field(alias="for")] = None

    @model_validator(mode="after")
    def _fits(self) -> Happening:
        if (self.lasting is not None) != (self.do in LASTING):
            raise ValueError(f"{self.do} {'needs' if self.do in LASTING else 'does not take'} `for`")
        if self.notice is not None and self.do != "preempt":
            raise ValueError(f"{self.do} does not take `notice`")
        return self


_SCRIPT = TypeAdapter(list[Happening])


def read_script(path: Path) -> list[Happening]:
    """The events of a YAML file, in the order of their times. Raises ScriptError."""
    try:
        found = _SCRIPT.validate_python(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ScriptError(f"{path} can't be read: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: {error}") from error
    return sorted(found, key=lambda event: event.at)


def draw_script(*, seed: int, days: float, per_day: Mapping[Kind, float]) -> list[Happening]:
    """Each kind by itself as a Poisson process of its own rate; how long what lasts does so is drawn as well.

    The same arguments give the same script; a kind's events don't depend on the other kinds.
    """
    drawn: list[Happening] = []
    for kind, rate in per_day.items():
        numbers = random.Random(f"{seed}:{kind}")  # noqa: S311 - repeatable, no secret
        at = 0.0
        while rate > 0 and (at := at + numbers.expovariate(rate / _DAY_S)) < days * _DAY_S:
            lasting = numbers.expovariate(1 / LASTING[kind]) if kind in LASTING else None
            drawn.append(Happening(at=at, do=kind, lasting=lasting))
    return sorted(drawn, key=lambda event: event.at)
