"""A block of Terraform's JSON against the provider's schema: unknown, missing, of another type, of another word.

The types are the bindings', so a number is a number here, where Terraform would take "12" for 12 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.proof import bindings
from infra.proof.mistake import Mistake, suggest

Json = dict[str, Any]

COMMENT = "//"
META = {
    "resource": frozenset({"count", "depends_on", "for_each", "lifecycle", "provider", "provisioner", "connection"}),
    "data": frozenset({"count", "depends_on", "for_each", "lifecycle", "provider"}),
    "provider": frozenset({"alias"}),
}
"""What Terraform itself understands in a block of each kind."""

_NAMES = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_WANTED = {"string": "text", "number": "a number", "bool": "true or false"}


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The provider's schema; `found` is what `bindings.load` returns."""

    found: Json

    @property
    def version(self) -> str:
        """The provider's."""
        return str(self.found["version"])

    def types(self, kind: str) -> Json:
        """Block names by Terraform's type. `kind`: resource, data or provider."""
        types: Json = self.found[kind]
        return types

    def fields(self, block: str) -> Json:
        fields: Json = self.found["blocks"][block]["fields"]
        return fields

    def exported(self, block: str, name: str) -> str | None:
        """The block that `name` of `block` is made of, "" where it is a plain value, None where there is none."""
        exports: dict[str, str] = self.found["blocks"][block]["exports"]
        for spelt in (bindings.camel(name), f"{bindings.camel(name)}Attribute"):
            if spelt in exports:
                return exports[spelt]
        if name in (fields := self.fields(block)):  # renamed in the bindings, because the library owns the word
            kind = fields[name]["type"]
            return str(kind[1]) if kind[0] in ("one", "many") else ""
        return None

    def names(self, block: str) -> list[str]:
        """All that an expression can read of `block`."""
        return [bindings.snake(name) for name in self.found["blocks"][block]["exports"]]

    def mistakes(self, stack: str, path: str, *, kind: str, of_type: str, body: Any) -> Iterator[Mistake]:
        """All that is wrong in one resource, data source or provider."""
        block = self.types(kind).get(of_type)
        if block is None:
            reason = f"the provider has no {kind} {of_type}"
            yield Mistake(stack=stack, path=path, reason=reason, fix=suggest(of_type, self.types(kind)))
            return
        yield from _Check(self, stack).block(path, block, body, meta=META[kind])


@dataclass(frozen=True)
class _Check:
    schema: Schema
    stack: str

    def block(self, path: str, block: str, body: Any, *, meta: frozenset[str] = frozenset()) -> Iterator[Mistake]:
        if not isinstance(body, dict):
            yield self._mistake(path, f"is {_named(body)}, and is a block", "write an object with the block's fields")
            return
        fields = self.schema.fields(block)
        for name, value in body.items():
            if name == COMMENT or name in meta or value is None:
                continue
            if name not in fields:
                yield self._unknown(f"{path}.{name}", block, name, allowed=fields)
                continue
            yield from self._field(f"{path}.{name}", fields[name], value)
        for name, field in fields.items():
            if field["required"] and body.get(name) in (None, []):
                yield self._mistake(f"{path}.{name}", "is required, and is missing", f"write {name}")

    def _unknown(self, path: str, block: str, name: str, *, allowed: Json) -> Mistake:
        if name == "dynamic":
            return self._mistake(path, "a dynamic block can't be checked", "write the blocks themselves")
        if self.schema.exported(block, name) is not None:
            return self._mistake(path, "is what Google sets, and can only be read", "leave it out")
        return self._mistake(path, "is unknown", suggest(name, allowed))

    def _field(self, path: str, field: Json, value: Any) -> Iterator[Mistake]:
        if "deprecated" in field:
            yield self._mistake(path, f"is deprecated: {field['deprecated']}", "write what replaces it")
        yield from self._value(path, field["type"], value, words=field.get("words"))

    def _value(self, path: str, wanted: Any, value: Any, *, words: list[str] | None = None) -> Iterator[Mistake]:
        if wanted == "any" or (is_expression(value) and wanted[0] not in ("one", "many")):
            return
        if isinstance(wanted, str):
            yield from self._plain(path, wanted, value, words)
        elif wanted[0] == "map":
            if not isinstance(value, dict):
                yield self._mistake(path, f"is {_named(value)}, and is a map", "write an object of names and values")
                return
            for name, one in value.items():
                yield from self._value(f"{path}[{name!r}]", wanted[1], one)
        elif wanted[0] == "list":
            if not isinstance(value, list):
                yield self._mistake(path, f"is {_named(value)}, and is a list", "write [...] around it")
                return
            for place, one in enumerate(value):
                yield from self._value(f"{path}[{place}]", wanted[1], one, words=words)
        else:
            yield from self._blocks(path, wanted, value)

    def _plain(self, path: str, wanted: str, value: Any, words: list[str] | None) -> Iterator[Mistake]:
        if not _is(wanted, value):
            yield self._mistake(path, f"is {_named(value)}, and is {_WANTED[wanted]}", f"write {_WANTED[wanted]}")
        elif words and isinstance(value, str) and value not in words and "${" not in value:
            yield self._mistake(path, f"can't be {value!r}", suggest(value, words))

    def _blocks(self, path: str, wanted: list[str], value: Any) -> Iterator[Mistake]:
        many, block = wanted[0] == "many", wanted[1]
        if not isinstance(value, list):
            yield from self.block(path, block, value)
            return
        if not many and len(value) > 1:
            yield self._mistake(path, f"is there {len(value)} times, and can be there once", "leave one")
        for place, one in enumerate(value):
            yield from self.block(f"{path}[{place}]", block, one)

    def _mistake(self, path: str, reason: str, fix: str) -> Mistake:
        return Mistake(stack=self.stack, path=path, reason=reason, fix=fix)


def is_expression(value: Any) -> bool:
    """Whether the whole text is one expression, which may have any type."""
    return isinstance(value, str) and value.startswith("${") and value.endswith("}")


def _is(wanted: str, value: Any) -> bool:
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "bool": bool}[wanted])


def _named(value: Any) -> str:
    return _NAMES.get(type(value), "nothing")
