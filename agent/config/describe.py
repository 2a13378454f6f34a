"""The run file's fields, for people: name, type, unit, default, meaning."""

import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from agent.config.refusal import Section
from agent.config.run import RunConfig

_DOCSTRING = re.compile(r"^(?P<meaning>.*?)(?: Unit: (?P<unit>[^.]+)\.)?(?: Default: (?P<default>.+)\.)?$", re.DOTALL)


class FieldDoc(NamedTuple):
    """One line of the run file's reference."""

    path: str
    """Keys with dots between them; `[]` after a list."""
    meaning: str
    unit: str
    """Empty where the value is a name or a choice."""
    default: str
    """Empty for a section."""
    section: bool


def describe_fields(section: type[Section] = RunConfig, *, prefix: str = "") -> Iterator[FieldDoc]:
    """Every field of the run file, sections first, in the file's order."""
    for name, field in section.model_fields.items():
        inner, many = _section_in(field.annotation)
        text = re.sub(r"\s+", " ", field.description or "")
        parts = _DOCSTRING.match(text)
        assert parts is not None  # the pattern matches every text
        path = f"{prefix}{field.alias or name}{'[]' if many and inner else ''}"
        yield FieldDoc(path, parts["meaning"], parts["unit"] or "", parts["default"] or "", inner is not None)
        if inner is not None:
            yield from describe_fields(inner, prefix=f"{path}.")


def field_at(where: Sequence[str | int]) -> FieldInfo | None:
    """The field that a location in a run file belongs to; None where there is none."""
    section: type[Section] | None = RunConfig
    field = None
    for key in where:
        if isinstance(key, int):
            continue
        if section is None:
            return field
        field = _fields(section).get(key)
        section = _section_in(field.annotation)[0] if field is not None else None
    return field


def keys_at(where: Sequence[str | int]) -> list[str]:
    """The keys that a mapping at this place of a run file can have."""
    if not where:
        return list(_fields(RunConfig))
    field = field_at(where)
    section = _section_in(field.annotation)[0] if field is not None else None
    return list(_fields(section)) if section is not None else []


def _fields(section: type[Section]) -> dict[str, FieldInfo]:
    """As they are called in a run file: `from` is no name that Python lets an attribute have."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section_in(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section that an annotation holds, and whether it holds a list of them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _section_in(get_args(annotation)[0])
    if origin is tuple:
        return _section_in(get_args(annotation)[0])[0], True
    if origin in (Union, types.UnionType):
        found = [_section_in(one) for one in get_args(annotation) if one is not type(None)]
        return found[0] if found else (None, False)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    return None, False
