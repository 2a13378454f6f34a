"""Who imports whom: downwards only, without a circle, by the source and by what an interpreter loads.

The floors are those of docs/tree.md. An import counts wherever it stands: at the top, in a function, under
`TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import graphlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import agent

ROOT = Path(__file__).parent.parent

FLOORS = [
    ["agent.start"],
    ["agent.main"],
    ["agent.run"],
    ["agent.trainer", "agent.checkpoint"],
    ["agent.program"],
    ["agent.telemetry", "agent.vm"],
    ["agent.config", "agent.notices", "agent.store"],
    ["spot_training.protocol"],
]
"""A room of the agent may import the rooms of the floors below its own."""

ON_ONE_FLOOR = {("agent.trainer", "agent.checkpoint"), ("agent.notices", "agent.config")}

INFRA_FLOORS = [
    ["infra.start"],
    ["infra.cli", "infra.proof", "infra.bench"],
    ["infra.main", "infra.operate"],
    ["infra.local", "infra.stacks"],
    ["infra.packing"],
]
READS = "agent.checkpoint.components"
"""Checkpoints as they are in the bucket, for whoever takes their weights."""

INFRA_MAY = {"agent.config", "agent.store", "spot_training.protocol", READS}
"""What all of infra may import of the others."""

MEASURES = {
    ("infra.bench", "agent.checkpoint"),
    ("infra.bench", "agent.main"),
    ("infra.bench", "agent.notices"),
    ("infra.bench", "agent.telemetry"),
    ("infra.bench", "spot_training"),
    ("infra.bench", "workloads.pictures"),
    ("infra.local.demo", "agent.checkpoint"),
}
"""The benchmark and the demo drive the agent itself, and read what it left."""

WORKLOADS_MAY = {"agent.config", "agent.store", "spot_training", READS}
TRAINERS = {"workloads.llm", "workloads.vlm", "workloads.arr_coc"}
"""What two of them need is in a room of its own: nobody imports a trainer."""


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    found = {}
    for package in ("agent", "infra", "workloads", "workloads/spot_training"):
        top = ROOT / package
        for file in top.rglob("*.py"):
            if package == "workloads" and file.is_relative_to(top / "spot_training"):
                continue
            parts = [top.name, *file.relative_to(top).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def named(file: Path) -> Iterator[str]:
    """What the imports of a file name, wherever they stand: modules of ours in full."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: write imports in full"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in modules() else str(node.module)


@cache
def imports() -> dict[str, set[str]]:
    """Each module of ours, and what it imports, ours or not."""
    return {module: set(named(file)) for module, file in modules().items()}


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    """The first two names of it: `agent.run` of `agent.run.window`. All of the library but its wire is one room."""
    if is_in(module, "spot_training"):
        return "spot_training.protocol" if is_in(module, "spot_training.protocol") else "spot_training"
    return ".".join(module.split(".")[:2])


def floor_of(room: str, floors: list[list[str]]) -> int | None:
    return next((number for number, rooms in enumerate(floors) if room in rooms), None)


def may_import(importer: str, imported: str) -> bool:
    """Whether the directions allow it; both are modules of ours, in two rooms."""
    here, there = room_of(importer), room_of(imported)
    if is_in(importer, "spot_training"):
        return here == "spot_training" and there == "spot_training.protocol"
    if is_in(importer, "workloads"):
        if is_in(imported, "workloads"):
            return there not in TRAINERS
        return any(is_in(imported, room) for room in WORKLOADS_MAY)
    if (here, there) in ON_ONE_FLOOR or any(is_in(importer, one) and is_in(imported, other) for one, other in MEASURES):
        return True
    floors = FLOORS if is_in(importer, "agent") else INFRA_FLOORS
    above, below = floor_of(here, floors), floor_of(there, floors)
    if above is not None and below is not None:
        return above < below
    return is_in(importer, "infra") and any(is_in(imported, room) for room in INFRA_MAY)


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in modules() if module.startswith(("agent.", "infra."))}
    assert rooms == {room for floor in [*FLOORS[:-1], *INFRA_FLOORS] for room in floor}


def test_imports_run_downwards_only() -> None:
    against = {
        (importer, imported)
        for importer, names in imports().items()
        for imported in names & modules().keys()
        if room_of(importer) != room_of(imported) and not may_import(importer, imported)
    }
    assert sorted(against) == [], "against the directions of the house: see FLOORS"


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {module: names & modules().keys() for module, names in imports().items()}
    graphlib.TopologicalSorter(graph).prepare()  # names one circle, where there are any


# --- what is loaded ---

WITHOUT = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def imported_by(statement: str, *, missing: frozenset[str] = frozenset(), path: Path = ROOT) -> set[str]:
    """The modules that a fresh interpreter in `path` has loaded after `statement`; what is `missing` can't be found."""
    program = f"{WITHOUT.format(missing=set(missing))}{statement}\nimport json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


AGENT_MODULES = sorted(found.name for found in pkgutil.walk_packages(agent.__path__, "agent."))


def test_the_agent_imports_neither_torch_nor_the_other_packages() -> None:
    loaded = imported_by("\n".join(f"import {module}" for module in AGENT_MODULES))
    assert set(AGENT_MODULES) <= loaded
    assert packages(loaded) & {"torch", "numpy", "transformers", "infra", "workloads"} == set()


def test_no_import_in_the_agent_names_torch_or_the_other_packages_not_even_a_late_one() -> None:
    found = {(module, name.partition(".")[0]) for module in AGENT_MODULES for name in imports()[module]}
    assert ("agent.config.load", "pydantic") in found
    assert [(module, name) for module, name in sorted(found) if name in {"torch", "infra", "workloads"}] == []


def test_reading_a_run_file_loads_no_client_and_no_screen() -> None:
    loaded = imported_by(
        "from pathlib import Path; import agent.config as c; c.load_run(Path('workloads/llm/run.yaml'))"
    )
    heavy = {"google", "requests", "grpc", "httpx", "httpx2", "rich", "typer", "structlog", "dbus_fast", "psutil"}
    assert "agent.config.run" in loaded
    assert packages(loaded) & heavy == set()


def test_the_local_cloud_and_the_command_line_need_no_torch() -> None:
    loaded = imported_by("import infra.cli, infra.local.metadata, infra.local.storage")
    assert packages(loaded) & {"torch", "transformers", "workloads"} == set()


# --- the library that a training script holds ---

LIBRARY = sorted(module for module in modules() if is_in(module, "spot_training"))
WIRE = [module for module in LIBRARY if is_in(module, "spot_training.protocol")]
OURS = frozenset({"agent", "infra", "workloads"})
NOT_TORCH = frozenset(
    {"crc32c", "dbus_fast", "google", "httpx2", "numpy", "prometheus_client", "psutil", "pydantic", "requests", "rich"}
    | {"safetensors", "structlog", "tokenizers", "transformers", "typer", "yaml"}
)
ADAPTERS = {
    "spot_training.accelerate": {"accelerate"},
    "spot_training.huggingface": {"transformers"},
    "spot_training.huggingface_state": {"transformers"},
    "spot_training.lightning": {"lightning"},
}
"""Each is imported by whoever uses that framework, and by nobody else."""


def import_all(found: list[str]) -> str:
    return "\n".join(f"import {module}" for module in found)


@pytest.mark.slow
def test_a_run_trains_and_finishes_where_there_is_torch_and_nothing_else(tmp_path: Path) -> None:
    script = """
from pathlib import Path
import torch
from spot_training import Session
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Session.open("bare") as session:
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(2):
        model(torch.ones(1, 2)).sum().backward()
        with session.update():
            optimizer.step()
            optimizer.zero_grad()
            session.log(at=step)
    session.finish(lambda folder: (folder / "weights").write_text("here"))
"""
    library = [module for module in LIBRARY if module not in ADAPTERS]
    loaded = imported_by(f"{script}\n{import_all(library)}", missing=NOT_TORCH | OURS, path=tmp_path)
    assert set(library) <= loaded
    assert (tmp_path / "out/bare/result/weights").read_text() == "here"


def test_the_wire_is_imported_without_torch(tmp_path: Path) -> None:
    loaded = imported_by(import_all(WIRE), missing=NOT_TORCH | OURS | {"torch"}, path=tmp_path)
    assert set(WIRE) <= loaded


def test_the_library_names_no_third_party_but_torch() -> None:
    third_parties = {
        (module, top)
        for module in LIBRARY
        for top in packages(imports()[module])
        if top not in sys.stdlib_module_names and top not in {"spot_training", "torch"}
    }
    late = {("spot_training.rng", "numpy"), ("spot_training.values", "numpy")}
    theirs = {(module, framework) for module, frameworks in ADAPTERS.items() for framework in frameworks}
    assert third_parties == late | theirs, "NumPy late, where the user's run has it; a framework in its adapter"
    assert {name for module in WIRE for name in packages(imports()[module])} & {"torch"} == set()
