"""The run file: what is accepted, and how what is not is explained."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.config import (
    Ablations,
    Cadence,
    RunConfig,
    RunFileError,
    Stage,
    StageMachine,
    Training,
    describe_fields,
    format_seconds,
    load_run,
    parse_seconds,
    run_file_text,
)
from agent.config.units import parse_cadence
from infra.stacks.machines import load_run as load_checked

ROOT = Path(__file__).parents[3]

MINIMAL = """\
run_id: tiny
model: {name: Qwen/Qwen3-0.6B}
data: {source: stdlib}
checkpoint: {bucket: gs://runs/tiny}
"""

COMMAND = """\
run_id: any-program
workload: {kind: command, command: [python, train.py], checkpoint_dir: saves}
checkpoint: {bucket: file:///mnt/runs, every: 10 min}
"""


def load(folder: Path, text: str) -> RunConfig:
    file = folder / "run.yaml"
    file.write_text(text)
    return load_run(file)


# --- what is accepted ---


RUN_FILES = sorted(file for file in ROOT.glob("workloads/**/*.yaml") if file.name != "thresholds.yaml")


@pytest.mark.parametrize("file", RUN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_committed_run_file_loads(file: Path) -> None:
    assert load_run(file).run_id


def test_there_are_committed_run_files() -> None:
    assert {"run.yaml", "production.yaml"} <= {file.name for file in ROOT.glob("workloads/llm/*.yaml")}


def test_a_run_file_of_four_lines_is_enough(tmp_path: Path) -> None:
    run = load(tmp_path, MINIMAL)
    assert (run.training.global_batch, run.checkpoint.every, run.machine.provisioning) == (32, Cadence(), "spot")


def test_any_program_needs_neither_model_nor_data(tmp_path: Path) -> None:
    run = load(tmp_path, COMMAND)
    assert run.workload.command == ("python", "train.py")
    assert run.workload.checkpoint_dir == Path("saves")  # of the code, wherever that will be


def test_a_script_counts_its_steps_and_needs_neither_model_nor_data(tmp_path: Path) -> None:
    run = load(
        tmp_path,
        "run_id: mine\nworkload: {kind: script, command: [python, train.py]}\n"
        "checkpoint: {bucket: gs://runs, every: 5000 steps, milestone_every: 10000 steps}\n",
    )
    assert (run.workload.command, run.checkpoint.every) == (("python", "train.py"), Cadence(steps=5000))


def test_relative_folders_start_at_the_run_file(tmp_path: Path) -> None:
    text = "run_id: r\nmodel: {name: ./model}\ndata: {source: books}\ncheckpoint: {bucket: gs://runs}\n"
    run = load(tmp_path, text)
    assert run.model is not None
    assert run.data is not None
    assert (run.model.name, run.data.source) == (str(tmp_path / "model"), str(tmp_path / "books"))


def test_numbers_and_texts_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    run = load(tmp_path, MINIMAL + "training: {learning_rate: 3e-4}\nworkload: {env: {A: on, B: no, C: 1:30}}\n")
    assert run.training.learning_rate == 3e-4
    assert run.workload.env == {"A": "on", "B": "no", "C": "1:30"}


def test_the_warm_up_is_a_twentieth_of_the_run_unless_given() -> None:
    assert Training(max_steps=400).warmup_steps == 20
    assert Training(max_steps=400, warmup_steps=7).warmup_steps == 7


def test_steps_may_carry_their_unit(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "training: {max_steps: 500 steps, eval_every: 50}\n").training.max_steps == 500


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10 min", 600),
        ("600s", 600),
        ("600 s", 600),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("0.5 s", 0.5),
        ("2 d", 172800),
    ],
)
def test_durations_are_read_with_any_usual_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False))
def test_a_written_duration_reads_back_as_the_same_number(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == seconds


@given(
    st.one_of(
        st.just(Cadence()),
        st.builds(Cadence, steps=st.integers(1, 10**9)),
        st.builds(Cadence, seconds=st.floats(0.001, 1e9)),
    )
)
def test_a_written_cadence_reads_back_as_the_same(cadence: Cadence) -> None:
    assert parse_cadence(str(cadence)) == cadence


@pytest.mark.parametrize("file", RUN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_run_written_as_json_is_a_run_file_that_says_the_same(file: Path, tmp_path: Path) -> None:
    run = load_run(file)
    assert load(tmp_path, run.model_dump_json(exclude_unset=True)) == run


def test_a_run_can_not_be_changed(tmp_path: Path) -> None:
    run = load(tmp_path, MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        run.run_id = "other"


def test_a_vm_reads_its_run_file_without_knowing_what_machines_there_are(tmp_path: Path) -> None:
    """A new machine type is the stacks' matter: the agent of yesterday trains on it."""
    machine = "machine: {type: a2-newgpu-3g, local_ssd: 3}\n"
    assert load(tmp_path, MINIMAL + machine).machine.type == "a2-newgpu-3g"
    with pytest.raises(RunFileError, match="there is no machine type a2-newgpu-3g"):
        load_checked(tmp_path / "run.yaml")


def test_a_stage_changes_only_what_it_names_of_the_machine(tmp_path: Path) -> None:
    run = load(tmp_path, MINIMAL + "machine: {type: a2-highgpu-1g, notice: 120 s, zones: [us-central1-a]}\n")
    stage = Stage(
        name="polish", steps=1, machine=StageMachine.model_validate({"provisioning": "standard", "notice": "0 s"})
    )
    machine = run.machine_for(stage)
    assert (machine.provisioning, machine.notice) == ("standard", 0)
    assert (machine.type, machine.zones) == ("a2-highgpu-1g", ("us-central1-a",))


def test_experiments_are_whole_runs_that_differ_in_the_grids_values(tmp_path: Path) -> None:
    grid = "ablations: {grid: {training.learning_rate: [1e-4, 3e-5], training.seed: [1, 2], workload.env.A: [x]}}\n"
    run = load(tmp_path, MINIMAL + "training: {max_steps: 500}\n" + grid)
    experiments = run.experiments()
    assert [(one.training.learning_rate, one.training.seed) for one in experiments] == [
        (1e-4, 1),
        (1e-4, 2),
        (3e-5, 1),
        (3e-5, 2),
    ]
    for one in experiments:
        assert (one.training.max_steps, one.workload.env, one.ablations) == (500, {"A": "x"}, None)
        assert one.checkpoint == run.checkpoint
    assert run.workload.env == {}


def test_one_experiment_leaves_nothing_behind_in_the_next() -> None:
    data = {"run_id": "r", "workload": {"env": {"A": "0"}}}
    for point in Ablations.model_validate({"grid": {"workload.env.A": ["1", "2"]}}).points():
        assert point.changed(data)["workload"]["env"] == {"A": point.values["workload.env.A"]}
    assert data == {"run_id": "r", "workload": {"env": {"A": "0"}}}


def test_a_longer_grid_renames_no_experiment(tmp_path: Path) -> None:
    short = load(tmp_path, MINIMAL + "ablations: {grid: {training.seed: [1], model.name: [aa/bb]}}\n").experiments()
    text = MINIMAL + f"ablations: {{grid: {{training.seed: [0, 1], model.name: [aa/bb, cc/{'d' * 60}]}}}}\n"
    names = [one.run_id for one in load(tmp_path, text).experiments()]
    assert names[2] == short[0].run_id == "tiny-seed-1-name-aa-bb"
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 40


def test_several_vms_stay_together_and_one_may_move(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).machine.placement == "any"
    gang = "training: {global_batch: 32}\nmachine: {vms: 2}\n"
    assert load(tmp_path, MINIMAL + gang).machine.placement == "any_single_zone"


def test_a_stage_of_another_type_has_not_the_runs_alternatives(tmp_path: Path) -> None:
    run = load(tmp_path, MINIMAL + "machine: {type: g2-standard-8, alternatives: [g2-standard-12]}\n")
    other = Stage(name="polish", steps=1, machine=StageMachine.model_validate({"type": "a2-highgpu-1g"}))
    assert run.machine_for(other).alternatives == ()


@pytest.mark.parametrize("file", RUN_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_run_that_is_written_reads_back_as_the_same(file: Path, tmp_path: Path) -> None:
    run = load_run(file)
    assert load(tmp_path, run_file_text(run)) == run


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff"), max_size=20))
@example("1e-4")
@example("on")
@example("1:30")
@example("null")
def test_any_text_that_is_written_reads_back_as_the_same(text: str) -> None:
    run = RunConfig.model_validate(yaml.safe_load(MINIMAL) | {"workload": {"env": {"A": text, "B": text}}})
    with tempfile.TemporaryDirectory() as folder:
        assert load(Path(folder), run_file_text(run)) == run


# --- what is refused ---

FILLER = {
    "run_id": "run_id: tiny",
    "model": "model: {name: Qwen/Qwen3-0.6B}",
    "data": "data: {source: stdlib}",
    "checkpoint": "checkpoint: {bucket: gs://runs/tiny}",
}
_BLOCKS = Path(__file__).with_name("run_file_mistakes.txt").read_text().split("\n=== ")[1:]
MISTAKES = dict(block.partition("\n")[::2] for block in _BLOCKS)
"""By name: a run file's lines, one of them with the comment `# <- path | reason | fix`."""


def complete(snippet: str) -> str:
    """The snippet, with the sections that every run file needs and it lacks."""
    given_keys = re.findall(r"^(\w+):", snippet, re.MULTILINE)
    return "\n".join([snippet, *(text for key, text in FILLER.items() if key not in given_keys)]) + "\n"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line_reason_and_fix(mistake: str, tmp_path: Path) -> None:
    lines = MISTAKES[mistake].splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "# <- " in text)
    path, reason, fix = (part.strip() for part in lines[line - 1].partition("# <- ")[2].split(" | "))
    (tmp_path / "run.yaml").write_text(complete(MISTAKES[mistake]))
    with pytest.raises(RunFileError) as caught:
        load_checked(tmp_path / "run.yaml")  # as `spot check` does
    assert len(caught.value.mistakes) == 1, str(caught.value)
    named = "" if path == "(the file)" else f"{path}: "
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/run.yaml:{line}: {named}")
    assert reason in first
    assert second.startswith("    fix: ")
    assert fix in second


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = "run_id: tiny\nrun_id: x\ntrainin: 1\nmodel: {}\ndata: {source: s3://a}\nsupervision: {stop_grace: 5}\n"
    with pytest.raises(RunFileError) as caught:
        load(tmp_path, text)
    assert [(mistake.line, mistake.path) for mistake in caught.value.mistakes] == [
        (1, "checkpoint"),
        (2, "run_id"),
        (3, "trainin"),
        (4, "model"),
        (5, "data.source"),
        (6, "supervision.stop_grace"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "mapping"),
        (b"- a\n", 1, "mapping"),
        (b"just text\n", 1, "mapping"),
        (b"run_id: a\n  b: c\n", 2, "not YAML"),
        (b"run_id: 'a\n\nmodel: b\n", 4, "not YAML"),
        (b"run_id: a\n---\nrun_id: b\n", 2, "not YAML"),
        (b"run_id: a\nmodel: *b\n", 2, "anchors"),
        (b"run_id: \x00\n", 1, "not YAML"),
        (b"a: " + b"[" * 20_000, 1, "nested too deeply"),
        (b"run_id: " + b"9" * 6000, 1, "not a number"),
    ],
)
def test_what_is_not_a_run_file_is_named_with_its_line(content: bytes, line: int, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(RunFileError, match=reason) as caught:
        load_run(file)
    assert caught.value.mistakes[0].line == line


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"\xff\xfe\x00", "not UTF-8"), (b"#" * 200_001, "too large")]
)
def test_what_can_not_be_read_is_said_without_a_line(content: bytes | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunFileError, match=rf"run\.yaml: .*{reason}"):
        load_run(file)


def test_a_folder_is_not_a_run_file(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="is a directory"):
        load_run(tmp_path)


# --- what is said about the fields ---


def test_every_field_says_its_meaning_and_its_default() -> None:
    silent = [field.path for field in describe_fields() if not field.meaning or not (field.default or field.section)]
    assert silent == []


def test_every_number_says_its_unit() -> None:
    schema = RunConfig.model_json_schema()
    numbers = {
        name
        for section in schema["$defs"].values()
        for name, field in section["properties"].items()
        if {"integer", "number"} & {part.get("type") for part in (field, *field.get("anyOf", ()))}
    }
    without = [field.path for field in describe_fields() if field.path.split(".")[-1] in numbers and not field.unit]
    assert "seed" in numbers
    assert without == []


def test_the_default_in_a_fields_text_is_its_default() -> None:
    schema = RunConfig.model_json_schema()
    seen = 0
    for section in (schema, *schema["$defs"].values()):
        for name, field in section["properties"].items():
            stated = re.search(r"Default: (.*?)(?: \(.*\))?\.$", field.get("description", ""), re.DOTALL)
            if stated is None or name in ("warmup_steps", "env"):  # sections, and defaults that are worked out
                continue
            seen += 1
            assert yaml.safe_load(stated[1]) == field.get("default", "required"), name
    assert seen > 40


def test_the_schema_is_json_that_refuses_unknown_keys() -> None:
    schema = json.loads(json.dumps(RunConfig.model_json_schema()))
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["run_id", "checkpoint"]
    assert schema["$defs"]["Machine"]["properties"]["notice"]["default"] == "0 s"
