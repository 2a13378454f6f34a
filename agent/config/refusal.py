"""How a run file's values are refused: with the reason and with the fix."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

T = TypeVar("T")

Many = Annotated[tuple[T, ...], Strict(False)]
"""A YAML list, kept as a tuple because the run file is frozen."""


class Refusal(NamedTuple):
    """One combination of values that can't work."""

    where: tuple[str | int, ...]
    """The keys down to the value to change, from the section that refuses."""
    reason: str
    fix: str


def refuse(reason: str, fix: str) -> PydanticCustomError:
    """The error that a field's validator raises; `load_run` shows both texts with the line."""
    return PydanticCustomError("run_file", "{reason}", {"reason": reason, "fix": fix})


class Section(BaseModel):
    """A mapping of the run file: unknown keys, wrong types and its own `refusals` are all errors."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True
    )

    def refusals(self) -> Iterator[Refusal]:
        """Combinations of this section's values that can't work; asked only when each value is valid."""
        yield from ()

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        errors = [
            InitErrorDetails(type=refuse(reason, fix), loc=where, input=_value_at(self, where))
            for where, reason, fix in self.refusals()
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


def _value_at(value: Any, where: tuple[str | int, ...]) -> Any:
    for key in where:
        if isinstance(value, dict):
            value = value.get(key)
        else:
            value = value[key] if isinstance(key, int) else getattr(value, key, None)
    return value
