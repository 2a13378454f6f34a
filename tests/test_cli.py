"""The `spot` command, run as a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

from agent.config import describe_fields

ROOT = Path(__file__).parent.parent
GOOD = "workloads/llm/run.yaml"


def spot(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from infra.cli import app; app(prog_name='spot')", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_good_run_file_checks_with_exit_code_0() -> None:
    done = spot("check", GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "workloads/llm/run.yaml: run llm-small (llm) can be used\n"


def test_a_bad_run_file_ends_check_and_run_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    bad = tmp_path / "run.yaml"
    bad.write_text("run_id: a\nmachine:\n  notice: 120\n")
    for command in ("check", "run"):
        done = spot(command, str(bad), columns=40)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert f"{bad}:3: machine.notice: 120 has no unit\n    fix: write" in done.stderr


def test_help_names_the_commands_and_no_arguments_show_it() -> None:
    helped = spot("--help").stdout
    assert [name for name in ("check", "fields", "schema", "run") if f" {name} " not in helped] == []
    assert spot().stdout.strip() == helped.strip()


def test_help_of_run_teaches_every_key_of_the_run_file() -> None:
    shown = spot("run", "--help").stdout
    lines = [line.split()[0] for line in shown.splitlines() if line.split()]
    missing = [field.path for field in describe_fields() if field.path.split(".")[-1].removesuffix("[]") not in lines]
    assert missing == []
    assert "RUN.yaml" in shown
    assert "[duration; default: 10 min]" in " ".join(shown.split())


def test_the_schema_is_json() -> None:
    schema = json.loads(spot("schema").stdout)
    assert "max_steps" in schema["$defs"]["Training"]["properties"]
