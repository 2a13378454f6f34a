"""Who imports whom: the agent stands alone, and starts light."""

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import agent

ROOT = Path(__file__).parent.parent


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    program = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


AGENT_MODULES = sorted(found.name for found in pkgutil.walk_packages(agent.__path__, "agent."))


def test_the_agent_imports_neither_torch_nor_the_other_packages() -> None:
    loaded = imported_by("\n".join(f"import {module}" for module in AGENT_MODULES))
    assert set(AGENT_MODULES) <= loaded
    assert packages(loaded) & {"torch", "numpy", "transformers", "infra", "workloads"} == set()


def test_no_import_in_the_agent_names_torch_or_the_other_packages_not_even_a_late_one() -> None:
    named = {
        (str(file.relative_to(ROOT)), name.partition(".")[0])
        for file in (ROOT / "agent").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert ("agent/config/load.py", "pydantic") in named
    assert [(file, name) for file, name in sorted(named) if name in {"torch", "infra", "workloads"}] == []


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
