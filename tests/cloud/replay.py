"""Terraform itself at work on our stacks' graph, without Google's plugin: each resource is a `terraform_data` with the
same references, `depends_on` and lifecycle, which notes when it is made and when it is taken away.

Its notes are played to a Google that refuses what names something that is not there, calls an API that is not on, makes
what is there already, or takes away what something still uses.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.proof.expressions import scan
from infra.proof.order import APIS, NAMED, pattern_of
from infra.proof.references import texts

Json = dict[str, Any]
Address = tuple[str, str]
"""(stack, TYPE.NAME)."""


class Refused(Exception):
    """What Google said no to."""


def stand_ins(synthesized: Json, *, log: Path) -> Json:
    """A stack of `terraform_data` in place of Google's resources; data sources become values that are known at once."""
    resources = {
        f"{of_type}.{name}": body
        for of_type, named in synthesized.get("resource", {}).items()
        for name, body in named.items()
    }
    made: Json = {}
    for address, body in resources.items():
        read = {step for other in resources.values() for step in _read_of(address, other)}
        note = {"command": f"echo $WHAT {address} >> {log}", "environment": {"WHAT": "make"}}
        gone = {"when": "destroy", "command": f"echo take {address} >> {log}"}
        lifecycle = {
            key: value for key, value in body.get("lifecycle", {}).items() if key in ("create_before_destroy",)
        }
        made[_key(address)] = {
            "input": {
                "uses": sorted(
                    f"${{terraform_data.{_key(other)}.output.{step}}}"
                    for other in resources
                    for step in _read_of(other, body)
                ),
                **{step: f"{address}.{step}" for step in sorted(read)},
            },
            "triggers_replace": [json.dumps(body, sort_keys=True).replace("${", "$${").replace("%{", "%%{")],
            "depends_on": [
                f"terraform_data.{_key(other)}" for other in body.get("depends_on", ()) if other in resources
            ],
            "provisioner": [{"local-exec": note}, {"local-exec": gone}],
            **({"lifecycle": lifecycle} if lifecycle else {}),
        }
    return {"resource": {"terraform_data": made}}


def _key(address: str) -> str:
    return address.replace(".", "__")


def _read_of(address: str, body: Json) -> set[str]:
    """Attributes of `address` that `body` reads."""
    return {
        reference.steps[2]
        for _, text in texts("", body)
        for reference in scan(text).references
        if ".".join(reference.steps[:2]) == address and len(reference.steps) > 2
    }


@dataclass(eq=False)
class Google:
    """What there is. `stacks`: all of one app."""

    stacks: Mapping[str, Json]
    there: set[Address] = field(default_factory=set)

    def play(self, stack: str, lines: list[str]) -> None:
        """Raises Refused."""
        for line in lines:
            verb, address = line.split()
            (self._make if verb == "make" else self._take)((stack, address))

    def _make(self, node: Address) -> None:
        if node in self.there:
            raise Refused(f"409: {node} is there already")
        for other in self._all():
            if other == node or other in self.there:
                continue
            if self._needs(node, other):
                raise Refused(f"400: {node} names {other}, which is not there")
        for api in APIS[max((start for start in APIS if node[1].startswith(start)), key=len)]:
            services = [
                self._body(one)["service"] for one in self.there if one[1].startswith("google_project_service.")
            ]
            if f"{api}.googleapis.com" not in services:
                raise Refused(f"403 accessNotConfigured: {node} calls {api}")
        self.there.add(node)

    def _take(self, node: Address) -> None:
        self.there.discard(node)
        for other in self.there:
            if self._needs(other, node) and not node[1].startswith("google_project_service."):
                raise Refused(f"400: {other} still uses {node}")

    def _needs(self, node: Address, other: Address) -> bool:
        if node[0] == other[0] and other[1] in self._refers_to(node):
            return True
        said = self._said(node)
        return any(pattern.search(one) for pattern in self._named(other) for one in said)

    @functools.cache  # noqa: B019, as long as the test
    def _refers_to(self, node: Address) -> set[str]:
        written = (text for _, text in texts(node[1], self._body(node)))
        return {".".join(one.steps[:2]) for text in written for one in scan(text).references}

    @functools.cache  # noqa: B019
    def _said(self, node: Address) -> list[str]:
        """FIELD:TEXT of all that is written out; what is in metadata is read by VMs, which the group makes."""
        body = {key: value for key, value in self._body(node).items() if key != "metadata"}
        return [f"{path.rpartition('.')[2]}:{text}" for path, text in texts(node[1], body)]

    @functools.cache  # noqa: B019
    def _named(self, node: Address) -> list[re.Pattern[str]]:
        of_type = node[1].partition(".")[0]
        return [pattern_of(name, self._body(node), self.stacks[node[0]]) for name in NAMED.get(of_type, ())]

    def _all(self) -> list[Address]:
        return [
            (stack, f"{of_type}.{name}")
            for stack, synthesized in self.stacks.items()
            for of_type, named in synthesized.get("resource", {}).items()
            for name in named
        ]

    def _body(self, node: Address) -> Json:
        of_type, _, name = node[1].partition(".")
        body: Json = self.stacks[node[0]]["resource"][of_type][name]
        return body


def lines_of(log: Path) -> list[str]:
    """What was noted since the last time."""
    lines = re.findall(r".+", log.read_text()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines
