"""Seeded mistakes: each spoils one resource of a clean stack, as a person or a new version of a library would."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.proof.schema import COMMENT, Schema, is_expression

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """One spoilt stack. `path`: where the mistake is, which the check has to name."""

    what: str
    path: str
    stack: Json


def seeded(stack: Json, *, kind: str, of_type: str, schema: Schema) -> list[Seeded]:
    """Every kind of mistake that can be made in the first `of_type` of `stack`, deep inside it too."""
    (name, *_) = stack[kind][of_type]
    path = f"{'data.' if kind == 'data' else ''}{of_type}.{name}"

    def spoilt(what: str, where: str, spoil: Callable[[Json], None]) -> Seeded:
        spoil(broken := copy.deepcopy(body))
        named = {**stack[kind][of_type], name: broken}
        return Seeded(what=what, path=where, stack={**stack, kind: {**stack[kind], of_type: named}})

    body = stack[kind][of_type][name]
    block = schema.types(kind)[of_type]
    read_only = _read_only(block, schema)
    found = [
        spoilt("an unknown field", f"{path}.colour", lambda it: it.update(colour="red")),
        spoilt("an unknown block", f"{path}.coloring", lambda it: it.update(coloring={"red": 1})),
        spoilt("a dangling dependency", f"{path}.depends_on", lambda it: it.update(depends_on=["google_project.gone"])),
        spoilt(
            "an unknown field to ignore",
            f"{path}.lifecycle.ignore_changes",
            lambda it: it.update(lifecycle={"ignore_changes": ["colour"]}),
        ),
        spoilt("an unknown provider", f"{path}.provider", lambda it: it.update(provider="google.elsewhere")),
    ]
    if read_only:
        found.append(spoilt("a field that Google sets", f"{path}.{read_only}", lambda it: it.update({read_only: "x"})))
    for place, field, value in _fields(body, block, schema):
        found += _in_field(spoilt, path, place=place, field=field, value=value)
    return found


def _read_only(block: str, schema: Schema) -> str:
    fields = schema.fields(block)
    return next((name for name in schema.names(block) if name not in fields and schema.exported(block, name) == ""), "")


Place = tuple[str | int, ...]


def _fields(body: Json, block: str, schema: Schema, place: Place = ()) -> Iterator[tuple[Place, Json, Any]]:
    """All that is written in a block and in those inside it."""
    for name, value in body.items():
        field = schema.fields(block).get(name)
        if name == COMMENT or field is None or value is None:
            continue
        yield (*place, name), field, value
        if field["type"][0] in ("one", "many"):
            inner = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, one in inner:
                where = (*place, name) if index is None else (*place, name, index)
                yield from _fields(one, field["type"][1], schema, where)


def _in_field(
    spoilt: Callable[[str, str, Callable[[Json], None]], Seeded], path: str, *, place: Place, field: Json, value: Any
) -> Iterator[Seeded]:
    *above, name = place
    assert isinstance(name, str)
    where = path + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    outside = where.removesuffix(f".{name}")

    def at(it: Json) -> Json:
        for step in above:
            it = it[step]  # type: ignore[index]
        return it

    def put(new: Any) -> Callable[[Json], None]:
        return lambda it: at(it).update({name: new})

    kind = field["type"]
    misspelt = f"{name}s" if not name.endswith("s") else name[:-1]
    yield spoilt(
        f"{name} misspelt",
        f"{outside}.{misspelt}",
        lambda it: at(it).update({misspelt: at(it)[name]}),
    )
    if field["required"]:
        yield spoilt(f"{name} missing", where, lambda it: at(it).pop(name))
    if kind in ("string", "number", "bool"):
        wrong: dict[str, Any] = {"string": 7, "number": "seven", "bool": "yes"}
        yield spoilt(f"{name} of a wrong type", where, put(wrong[kind]))
        yield spoilt(f"{name} as a list", where, put([value]))
        yield spoilt(f"{name} as a block", where, put({"value": value}))
    if kind[0] == "list":
        yield spoilt(f"{name} as one value", where, put("x"))
        yield spoilt(f"{name} of a wrong type inside", f"{where}[0]", put([{"a": 1}]))
    if kind[0] == "map":
        yield spoilt(f"{name} as a list", where, put(["x"]))
    if kind[0] in ("one", "many"):
        yield spoilt(f"{name} as a text", where, put("x"))
    if kind[0] == "one" and not isinstance(value, list):
        yield spoilt(f"{name} twice", where, put([value, value]))
    if field.get("words") and isinstance(value, str):
        yield spoilt(f"{name} of another word", where, put("SOMETIMES"))
    if kind == "string":
        yield spoilt(f"{name} refers to a resource that is gone", where, put("${google_storage_bucket.gone.name}"))
        yield spoilt(f"{name} with a shell's variable", where, put("a ${HOME:-/root} b"))
        yield spoilt(f"{name} with a directive", where, put("a %{ if true }"))
    if is_expression(value) and value.count(".") == 2:
        yield spoilt(f"{name} reads an attribute that is not there", where, put(value.replace("}", "_s}")))
