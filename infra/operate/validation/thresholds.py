"""Thresholds: what a run's metrics must come to, with how much may be chance.

eval_loss: {max: 2.1, tolerance: 0.05}
accuracy: {min: 0.6, tolerance: {seeds: [0.64, 0.66, 0.61], deviations: 2}}
loss: {max: 4, at: 100}
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from agent.config import RunFileError
from agent.config.refusal import Many, Refusal, Section
from agent.config.yaml_file import Mistake, YamlFile

Finite = Annotated[float, Field(allow_inf_nan=False)]
Series = Sequence[tuple[int, float]]
_FIX = "write METRIC: {max: NUMBER} or {min: NUMBER}; also at: STEP or last, tolerance: NUMBER or {seeds: [...]}"


class Seeds(Section):
    """A tolerance by what the metric came to with other seeds; `spot ablate` measures that."""

    seeds: Many[Finite] = Field(min_length=2)
    """The metric's values."""
    deviations: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """How many standard deviations of them are borne."""

    @property
    def value(self) -> float:
        return self.deviations * statistics.stdev(self.seeds)


class Threshold(Section):
    """Of one metric."""

    max: Finite | None = None
    min: Finite | None = None
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Seeds = 0.0
    at: Annotated[int, Field(ge=0)] | Literal["last"] = "last"
    """The step whose value counts."""

    def refusals(self) -> Iterator[Refusal]:
        if self.max is None and self.min is None:
            yield Refusal((), "it bounds nothing", "write max: NUMBER, min: NUMBER, or both")
        if self.max is not None and self.min is not None and self.max < self.min:
            yield Refusal(("max",), f"{self.max:g} is less than min, {self.min:g}: nothing fits", "write a larger one")

    @property
    def borne(self) -> float:
        return self.tolerance.value if isinstance(self.tolerance, Seeds) else self.tolerance

    def describe(self) -> str:
        said = [f"≥ {self.min:g}"] if self.min is not None else []
        said += [f"≤ {self.max:g}"] if self.max is not None else []
        return " and ".join(said) + (f", give or take {self.borne:.3g}" if self.borne else "")


@dataclass(frozen=True)
class Held:
    """A metric held against its threshold. `value`: None where the run has none at that step."""

    metric: str
    threshold: Threshold
    value: float | None

    @property
    def verdict(self) -> Literal["passed", "failed", "missing"]:
        if self.value is None:
            return "missing"
        low = -math.inf if self.threshold.min is None else self.threshold.min - self.threshold.borne
        high = math.inf if self.threshold.max is None else self.threshold.max + self.threshold.borne
        return "passed" if low <= self.value <= high else "failed"  # NaN is in no bounds


def hold(thresholds: Mapping[str, Threshold], series: Mapping[str, Series]) -> list[Held]:
    """Each in the file's order."""
    found = []
    for metric, threshold in thresholds.items():
        values = dict(series.get(metric, ()))
        at = threshold.at if threshold.at != "last" else max(values, default=None)
        found.append(Held(metric, threshold, None if at is None else values.get(at)))
    return found


def read_thresholds(path: Path) -> dict[str, Threshold]:
    """Raises RunFileError, which names every mistake with its line."""
    file = YamlFile(path)
    mistakes = list(file.mistakes)
    thresholds: dict[str, Threshold] = {}
    try:
        thresholds = TypeAdapter(dict[str, Threshold]).validate_python(file.data or {})
    except ValidationError as error:
        for found in error.errors(include_url=False):
            where = _in_the_file(found["loc"])
            given: dict[str, Any] = found.get("ctx", {})
            line = next((file.lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in file.lines), 1)
            reason = given.get("reason") or found["msg"]
            mistakes.append(Mistake(line, ".".join(map(str, where)), reason, given.get("fix", _FIX)))
    if not mistakes and not thresholds:
        mistakes.append(Mistake(1, "", "there is no threshold", _FIX))
    if mistakes:
        raise RunFileError(path, mistakes)
    return thresholds


def _in_the_file(where: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Without what pydantic puts in for the kinds that a value may be of."""
    return tuple(key for key in where if isinstance(key, int) or not (key[:1].isupper() or "[" in key))
