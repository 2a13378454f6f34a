"""Values with a unit: "10 min", "600s", "1h30m", "500 steps"."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.config.refusal import refuse

_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_STEPS = re.compile(r"(\d+)\s*steps?")
_DURATION_PATTERN = r"^(\d+(\.\d+)?\s*[a-z]+\s*)+$"
_HOW = 'write the number with its unit, as in "90 s", "10 min" or "1h30m"'

_HOW_OFTEN = 'write "auto", "500 steps" or "10 min"'


def parse_seconds(value: object) -> float:
    """Seconds in a text such as "10 min", "600s" or "1h30m"; a number without a unit is refused."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise refuse(f"{value} has no unit", f'write "{value} s" for seconds or "{value} min" for minutes')
    if not isinstance(value, str):
        raise refuse(f"{value!r} is not a duration", _HOW)
    text, position, seconds = value.strip(), 0, 0.0
    while position < len(text):
        amount = _AMOUNT.match(text, position)
        if amount is None:
            raise refuse(f"{value!r} is not a duration", _HOW)
        number, unit = amount.groups()
        if not unit:
            how = f'write "{number} s" for seconds or "{number} min" for minutes' if text == number else _HOW
            raise refuse(f"{value!r} has a number without a unit", how)
        if unit not in _UNITS:
            raise refuse(f"{unit!r} is not a unit of time", 'the units are ms, s, min, h and d, as in "10 min"')
        seconds += float(number) * _UNITS[unit]
        position = amount.end()
    if not text:
        raise refuse("an empty text is not a duration", _HOW)
    return seconds


def format_seconds(seconds: float) -> str:
    """The shortest text that `parse_seconds` reads back as the same number: 600.0 -> "10 min"."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{Decimal(repr(float(seconds))):f} s" if seconds % 1 else f"{int(seconds)} s"


def written(text: str, *, gt: float | None = None, ge: float | None = None, le: float | None = None) -> Any:
    """A field whose default is written as in a run file, such as "10 min"."""
    return Field(default=text, validate_default=True, gt=gt, ge=ge, le=le)


def _parse_steps(value: object) -> object:
    match = _STEPS.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) if match else value


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    PlainSerializer(format_seconds, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90 s", "10 min", "1h30m"]}),
]
"""A duration: text with a unit in the run file, float seconds in Python."""

Steps = Annotated[int, BeforeValidator(_parse_steps)]
"""A number of optimizer steps: `500` and `"500 steps"` are the same."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often: every so many steps, every so many seconds, or (both None) as often as the agent finds best."""

    steps: int | None = None
    seconds: float | None = None

    @property
    def automatic(self) -> bool:
        """True for `auto`: the agent chooses from what it measures."""
        return self.steps is None and self.seconds is None

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps} steps"
        return "auto" if self.seconds is None else format_seconds(self.seconds)


def parse_cadence(value: object) -> Cadence:
    """A cadence in a text: "auto", "500 steps" or "10 min"; a number without a unit is refused."""
    if isinstance(value, Cadence):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise refuse(f"{value} has no unit", f'write "{value} steps" or "{value} min"')
    if value == "auto":
        return Cadence()
    steps = _parse_steps(value)
    try:
        cadence = Cadence(steps=steps) if isinstance(steps, int) else Cadence(seconds=parse_seconds(value))
    except PydanticCustomError as error:
        raise refuse(error.message(), _HOW_OFTEN) from None
    if cadence.steps == 0 or cadence.seconds == 0:
        raise refuse("a cadence of zero would never let anything else happen", _HOW_OFTEN)
    return cadence


CadenceText = Annotated[
    Cadence,
    PlainValidator(parse_cadence),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["auto", "500 steps", "10 min"]}),
]
"""A cadence: text in the run file, `Cadence` in Python."""
