"""The journal's documentation is what the code says, no more and no less."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from typer.testing import CliRunner

from agent.config.events import EVENTS, ONE_LINERS
from infra.cli import app

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error"}
SPREAD = "**"


def emitted() -> dict[str, set[str]]:
    """Every event that the agent's code can emit, with its fields; SPREAD for those that are not written out."""
    events: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
                continue
            name = node.args[0]
            assert isinstance(name, ast.Constant) and isinstance(name.value, str), (
                f"{path}:{node.lineno}: an event's name is written out"
            )
            events[name.value] |= {keyword.arg or SPREAD for keyword in node.keywords}
    events["library"] |= {"logger", "message", "exc_info"}  # the bridge from logging calls it by another name
    startup = (ROOT / "infra/stacks/fleet/runtime/startup.sh").read_text().replace("\\\n", " ")
    for line in re.findall(r"^\s*tell (?!PRIORITY).*$", startup, re.MULTILINE):
        found = re.search(r"\b(boot_\w+|disk_\w+|bundle_\w+)\b", line)
        assert found, line
        events[found[1]] |= {field.lower() for field in re.findall(r"\"([A-Z_]+)=", line)}
    return events


def test_every_event_of_the_code_is_documented_and_every_documented_one_is_of_the_code() -> None:
    assert set(EVENTS) == set(emitted())


def test_every_field_of_an_event_is_documented_and_no_other() -> None:
    for name, fields in emitted().items():
        documented = set(EVENTS[name].fields)
        assert fields - {SPREAD} <= documented, name
        if SPREAD not in fields:
            assert documented <= fields, name


def test_one_liners_ask_for_events_and_fields_that_exist() -> None:
    everywhere = {"MESSAGE", "ATTEMPT", "RUN_ID"}
    for line in ONE_LINERS.values():
        event = re.search(r"EVENT=(\w+)", line)
        asked = re.search(r"--output-fields=([\w,]+)", line)
        if event:
            assert event[1] in EVENTS, line
        if event and asked:
            assert set(asked[1].split(",")) <= {field.upper() for field in EVENTS[event[1]].fields} | everywhere, line


def test_spot_events_prints_them_all() -> None:
    printed = CliRunner().invoke(app, ["events"]).output
    assert all(name in printed for name in EVENTS)
    assert all(question in printed for question in ONE_LINERS)
