"""Every `${...}` of a stack leads to something that is there, and none leads in a circle."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.proof.expressions import Reference, scan
from infra.proof.mistake import Mistake, suggest
from infra.proof.schema import COMMENT, Schema

Json = dict[str, Any]

_ESCAPE = "write $${ and %%{ where the text is not Terraform's, as infra.stacks.literal does"
_SET_BY_TERRAFORM = {"path": {"module", "root", "cwd"}, "terraform": {"workspace", "applying"}}
_BARE = frozenset({"depends_on", "lifecycle", "provider"})
"""Fields of a resource that hold names, not text."""


def mistakes(stack: str, synthesized: Json, schema: Schema) -> Iterator[Mistake]:
    """`synthesized`: a stack's cdk.tf.json."""
    yield from _Check(stack, synthesized, schema).run()


@dataclass(frozen=True)
class _Check:
    stack: str
    all: Json
    schema: Schema

    def run(self) -> Iterator[Mistake]:
        needs: dict[str, set[str]] = {}
        for address, body in self._blocks():
            needs[address] = set()
            for path, text in texts(address, body):
                scanned = scan(text)
                for trouble in scanned.troubles:
                    yield self._mistake(path, trouble, _ESCAPE)
                for reference in scanned.references:
                    yield from self._resolve(path, reference, body, needs[address])
            yield from self._bare(address, body, needs[address])
        for part in ("terraform", "variable"):
            for path, text in texts(part, self.all.get(part, {})):
                if scan(text).references:
                    yield self._mistake(path, "must be plain text: Terraform reads it before all else", "write it out")
        try:
            graphlib.TopologicalSorter(needs).prepare()
        except graphlib.CycleError as error:
            yield self._mistake(error.args[1][0], f"needs itself: {' -> '.join(error.args[1])}", "cut the circle")

    def _blocks(self) -> Iterator[tuple[str, Any]]:
        for kind, start in (("resource", ""), ("data", "data.")):
            for of_type, named in self.all.get(kind, {}).items():
                for name, body in named.items():
                    yield f"{start}{of_type}.{name}", body
        for kind, start in (("provider", "provider"), ("output", "output"), ("locals", "local")):
            for name, body in self.all.get(kind, {}).items():
                yield f"{start}.{name}", body

    def _resolve(self, path: str, reference: Reference, body: Any, needs: set[str]) -> Iterator[Mistake]:
        root, *rest = reference.steps
        if root in ("var", "local"):
            known = self.all.get("variable" if root == "var" else "locals", {})
            if not rest or rest[0] not in known:
                yield self._mistake(path, f"${{{reference.text}}} is not there", suggest((rest or [""])[0], known))
            elif root == "local":
                needs.add(f"local.{rest[0]}")
        elif root in _SET_BY_TERRAFORM:
            if not rest or rest[0] not in _SET_BY_TERRAFORM[root]:
                yield self._mistake(path, f"${{{reference.text}}} is not there", _ESCAPE)
        elif root in ("each", "count"):
            if not isinstance(body, dict) or ("for_each" if root == "each" else "count") not in body:
                yield self._mistake(path, f"${{{reference.text}}} is used outside of a repeated block", _ESCAPE)
        else:
            yield from self._attribute(path, reference, needs)

    def _attribute(self, path: str, reference: Reference, needs: set[str]) -> Iterator[Mistake]:
        kind = "data" if reference.steps[0] == "data" else "resource"
        of_type, name, *steps = [*reference.steps[kind == "data" :], "", ""][: max(2, len(reference.steps))]
        steps = [step for step in steps if step]
        there = f"${{{reference.text}}}"
        named = self.all.get(kind, {}).get(of_type)
        if named is None:
            fix = suggest(of_type, self.all.get(kind, {})) if "_" in of_type and name else _ESCAPE
            yield self._mistake(path, f"{there} is not there: the stack has no {kind} {of_type}", fix)
        elif name not in named:
            yield self._mistake(path, f"{there} is not there", suggest(name, named))
        else:
            needs.add(f"{'data.' if kind == 'data' else ''}{of_type}.{name}")
            block = self.schema.types(kind).get(of_type)
            for step in steps:
                if not block:
                    break
                inner = self.schema.exported(block, step)
                if inner is None:
                    fix = suggest(step, self.schema.names(block))
                    yield self._mistake(path, f"{there}: {of_type} has no {step} to read", fix)
                block = inner

    def _bare(self, address: str, body: Any, needs: set[str]) -> Iterator[Mistake]:
        """Names that stand alone, without `${}`."""
        if not isinstance(body, dict):
            return
        lifecycle = body.get("lifecycle", {})
        for field, names in (
            ("depends_on", body.get("depends_on", [])),
            ("lifecycle.replace_triggered_by", lifecycle.get("replace_triggered_by", [])),
        ):
            for name in names:
                path = f"{address}.{field}"
                (reference, *_) = scan(f"${{{name}}}").references or [Reference(steps=(name,), text=name)]
                yield from self._attribute(path, reference, needs)
        yield from self._ignored(address, lifecycle.get("ignore_changes", []))
        yield from self._provider(address, body.get("provider"))

    def _ignored(self, address: str, names: Any) -> Iterator[Mistake]:
        kind = "data" if address.startswith("data.") else "resource"
        of_type = address.removeprefix("data.").partition(".")[0]
        block = self.schema.types(kind).get(of_type)
        fields = self.schema.fields(block) if block else {}
        for name in names if isinstance(names, list) else []:  # the one word "all" is text
            first = name.replace("[", ".").partition(".")[0]
            if first not in fields:
                yield self._mistake(f"{address}.lifecycle.ignore_changes", f"{name} is unknown", suggest(first, fields))

    def _provider(self, address: str, name: Any) -> Iterator[Mistake]:
        providers = self.all.get("provider", {})
        known = {f"{kind}.{one['alias']}" for kind, all_of in providers.items() for one in all_of if "alias" in one}
        known |= set(providers)
        if name is not None and name not in known:
            yield self._mistake(f"{address}.provider", f"there is no provider {name}", suggest(str(name), known))

    def _mistake(self, path: str, reason: str, fix: str) -> Mistake:
        return Mistake(stack=self.stack, path=path, reason=reason, fix=fix)


def texts(path: str, value: Any, *, top: bool = True) -> Iterator[tuple[str, str]]:
    """All texts below `value`, keys of maps among them: Terraform evaluates those too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from texts(f"{path}[{place}]", one, top=False)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name == COMMENT or (top and name in _BARE):
                continue
            yield path, name
            yield from texts(f"{path}.{name}", one, top=False)
