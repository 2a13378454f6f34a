"""Observability: what is measured is what the agent says, and each alert tells what to do."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.telemetry.journal import journal_fields
from agent.telemetry.ledger import Incident, Resume
from infra.operate.doctor.limits import METRICS_OF_A_RUN
from infra.operate.stacks import read_stacks
from infra.stacks.deployment import Deployment
from infra.stacks.machines import load_run
from tests.cloud.conftest import Synthesize
from tests.cloud.examples import Synthesized

ROOT = Path(__file__).parents[2]
RUN = """
run_id: watched
workload: {kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}
checkpoint: {bucket: gs://some-bucket/runs, every: 10 min}
machine: {type: a2-highgpu-1g, notice: 120 s, vms: 2}
cloud:
  project: some-project
  alert_emails: [ann@example.org, bob@example.org]
  budget: {monthly: 700, billing_account: 012345-6789AB-CDEF01}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The stack's resources by type and id."""
    from cdktn import App

    from infra.stacks.observability.stack import ObservabilityStack

    folder = tmp_path_factory.mktemp("observability")
    (folder / "run.yaml").write_text(RUN)
    app = App(outdir=str(folder / "out"))
    deployment = Deployment.of(load_run(folder / "run.yaml"))
    ObservabilityStack(app, "observability", deployment=deployment)
    app.synth()
    made: dict[str, Any] = json.loads((folder / "out/stacks/observability/cdk.tf.json").read_text())
    return made


@pytest.fixture(scope="module")
def emitted() -> dict[str, set[str]]:
    """Each event that the agent's code logs, with the names of its fields."""
    marks = {
        call.args[0].value
        for call in _calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "mark"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }
    unpacked = {
        "resumed": {field.name for field in dataclasses.fields(Resume)},
        "window": {"deadline_s", "warning_s"},
        "window_used": {f"{prefix}{mark}_s" for mark in marks for prefix in ("", "last_")},
    }
    events: dict[str, set[str]] = {}
    for call in _calls():
        if not (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "log" and call.args):
            continue
        event = call.args[0]
        assert isinstance(event, ast.Constant), ast.unparse(call)
        assert isinstance(event.value, str)
        fields = {keyword.arg for keyword in call.keywords if keyword.arg}
        if any(keyword.arg is None for keyword in call.keywords):
            fields |= unpacked.get(event.value, set())  # of another, a metric can count on no field
        events.setdefault(event.value, set()).update(fields | {"event", "run_id"})
    return events


def _calls() -> list[ast.Call]:
    trees = [ast.parse(file.read_text()) for file in sorted((ROOT / "agent").rglob("*.py"))]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def metrics(stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {made["name"]: made for made in stack["resource"]["google_logging_metric"].values()}


def test_every_metric_counts_an_event_that_the_agent_emits_by_fields_that_it_has(
    stack: dict[str, Any], emitted: dict[str, set[str]]
) -> None:
    assert {"window_used", "committed", "resumed", "gave_up"} <= set(emitted)
    for name, metric in metrics(stack).items():
        text = " ".join(
            [metric["filter"], metric.get("value_extractor", ""), *metric.get("label_extractors", {}).values()]
        )
        events = re.search(r'jsonPayload\.EVENT=(\([^)]*\)|"[^"]*")', metric["filter"])
        assert events, f"{name} counts any event"
        used = {field.lower() for field in re.findall(r"jsonPayload\.([A-Z_]+)", text)}
        for event in re.findall(r'"(\w+)"', events[1]):
            assert event in emitted, f"{name}: the agent logs no {event}"
            assert used <= emitted[event], f"{name}: {event} has no {used - emitted[event]}"


def test_values_that_metrics_ask_for_are_values_that_the_agent_gives(stack: dict[str, Any]) -> None:
    """Kinds and causes are the agent's own literal types."""
    from typing import get_args

    from agent.config.causes import Cause

    asked: dict[str, set[str]] = {field: set() for field in ("KIND", "CAUSE")}
    for metric in metrics(stack).values():
        for field, values in re.findall(r'jsonPayload\.(KIND|CAUSE)=(\([^)]*\)|"[^"]*")', metric["filter"]):
            asked[field] |= set(re.findall(r'"(\w+)"', values))
    assert asked["KIND"] == {"preempted"} <= set(get_args(Cause))
    assert asked["CAUSE"] == {"crash", "out_of_memory", "hang"} <= set(get_args(Cause))


def test_what_is_extracted_from_a_record_is_the_number_that_the_agent_meant(stack: dict[str, Any]) -> None:
    resume = Resume("watched", 3, "vm", 0.0, source="bucket", phases_s={"fetched": 1.5, "restored": 12.25})
    resume.lost_s = 95.5
    record = dict(journal_fields({"event": "resumed", **dataclasses.asdict(resume)}))
    found = {
        name: _extract(metric["value_extractor"], record)
        for name, metric in metrics(stack).items()
        if '"resumed"' in metric["filter"]
    }
    assert found == {"spot/watched/restore_seconds": 12.25, "spot/watched/seconds_lost": 95.5}


def _extract(extractor: str, record: dict[str, str]) -> float:
    """As Cloud Logging does it: the field as text, the group of the pattern where there is one, as a number."""
    whole = re.fullmatch(r"EXTRACT\(jsonPayload\.(\w+)\)", extractor)
    if whole:
        return float(record[whole[1]])
    inside = re.fullmatch(r'REGEXP_EXTRACT\(jsonPayload\.(\w+), "(.*)"\)', extractor)
    assert inside, extractor
    found = re.search(inside[2].replace('\\"', '"'), record[inside[1]])
    assert found, record
    return float(found[1])


def test_an_interruption_costs_all_that_passed_since_the_save_it_came_back_from() -> None:
    resume = Resume("a", 1, "vm", 0.0, saved_utc="2026-11-24T10:00:00+00:00")
    resume.mark_first_step(now_utc="2026-11-24T10:02:05.5+00:00")
    assert (resume.lost_s, "first_step" in resume.phases_s) == (125.5, True)
    for unknown in (None, "yesterday", "2026-11-24T10:00:00"):
        odd = Resume("a", 1, "vm", 0.0, saved_utc=unknown)
        odd.mark_first_step(now_utc="2026-11-24T10:02:05.5+00:00")
        assert (odd.lost_s, "first_step" in odd.phases_s) == (None, True)
    assert Incident("a", 1, "vm", "drill", "x", 0.0).steps_lost is None, "not known is not nothing"


def test_queries_of_dashboard_and_alerts_name_metrics_that_are_there(stack: dict[str, Any]) -> None:
    known = {re.sub(r"[^A-Za-z0-9]", "_", name): metric for name, metric in metrics(stack).items()}
    queries = [*_dashboard_queries(stack), *_alert_queries(stack)]
    assert len(queries) > 12
    named = [found for query in queries for found in re.findall(r"logging_googleapis_com:user_(\w+)\{([^}]*)\}", query)]
    assert named
    for series, labels in named:
        metric = known[re.sub(r"_(count|sum|bucket)$", "", series)]
        distribution = metric["metric_descriptor"]["value_type"] == "DISTRIBUTION"
        assert series.endswith(("_count", "_sum", "_bucket")) == distribution, series
        assert 'monitored_resource="gce_instance"' in labels
        used = set(re.findall(r"(\w+)=", labels)) - {"monitored_resource"}
        assert used <= set(metric.get("label_extractors", {})), (series, used)
    assert all(query.count("(") == query.count(")") for query in queries)


def _dashboard_queries(stack: dict[str, Any]) -> list[str]:
    text = stack["resource"]["google_monitoring_dashboard"]["dashboard"]["dashboard_json"]
    return [*_values(json.loads(text), "prometheusQuery")]


def _alert_queries(stack: dict[str, Any]) -> list[str]:
    policies = stack["resource"]["google_monitoring_alert_policy"].values()
    return [
        condition["condition_prometheus_query_language"]["query"]
        for policy in policies
        for condition in policy["conditions"]
    ]


def _values(tree: Any, key: str) -> list[str]:
    if isinstance(tree, dict):
        return [found for k, v in tree.items() for found in ([v] if k == key else _values(v, key))]
    return [found for item in tree for found in _values(item, key)] if isinstance(tree, list) else []


def test_the_doctor_counts_as_many_metrics_as_there_are(stack: dict[str, Any]) -> None:
    assert len(metrics(stack)) == METRICS_OF_A_RUN


def test_tiles_of_the_dashboard_neither_overlap_nor_leave_it(stack: dict[str, Any]) -> None:
    layout = json.loads(stack["resource"]["google_monitoring_dashboard"]["dashboard"]["dashboard_json"])["mosaicLayout"]
    covered: set[tuple[int, int]] = set()
    for tile in layout["tiles"]:
        cells = {
            (x, y)
            for x in range(tile["xPos"], tile["xPos"] + tile["width"])
            for y in range(tile["yPos"], tile["yPos"] + tile["height"])
        }
        assert max(x for x, _ in cells) < layout["columns"]
        assert not cells & covered, tile["widget"]["title"]
        covered |= cells


def test_the_dashboard_draws_the_window_of_this_run(stack: dict[str, Any]) -> None:
    text = stack["resource"]["google_monitoring_dashboard"]["dashboard"]["dashboard_json"]
    assert [line["value"] for line in _all_dicts(json.loads(text), "thresholds")] == [147.0]  # 120 + 30 * 0.9


def _all_dicts(tree: Any, key: str) -> list[dict[str, Any]]:
    if isinstance(tree, dict):
        return [found for k, v in tree.items() for found in (v if k == key else _all_dicts(v, key))]
    return [found for item in tree for found in _all_dicts(item, key)] if isinstance(tree, list) else []


def test_each_alert_says_what_it_means_what_to_do_and_the_command(stack: dict[str, Any]) -> None:
    policies = stack["resource"]["google_monitoring_alert_policy"]
    assert set(policies) == {
        "alert-crash-loop",
        "alert-no-agent",
        "alert-no-progress",
        "alert-save-misses-window",
        "alert-vm-not-back",
    }
    for policy in policies.values():
        text = policy["documentation"]["content"]
        assert "**What it means.**" in text
        assert "**What to do.**" in text
        assert re.search(r"^    (spot|gcloud) ", text, re.MULTILINE)
        assert len(policy["notification_channels"]) == 2
        for condition in policy["conditions"]:
            assert condition["condition_prometheus_query_language"]["disable_metric_validation"] is True


def test_the_budget_is_of_this_run_and_warns_before_it_is_spent(stack: dict[str, Any]) -> None:
    (budget,) = stack["resource"]["google_billing_budget"].values()
    assert budget["amount"] == {"specified_amount": {"units": "700"}}, "any currency but the account's is refused"
    assert budget["budget_filter"]["labels"] == {"spot-run": "watched"}
    assert budget["budget_filter"]["projects"] == ["projects/${data.google_project.project.number}"]
    rules = [(rule["threshold_percent"], rule["spend_basis"]) for rule in budget["threshold_rules"]]
    assert rules == [
        (0.5, "CURRENT_SPEND"),
        (0.9, "CURRENT_SPEND"),
        (1, "CURRENT_SPEND"),
        (1, "FORECASTED_SPEND"),
    ]
    assert budget["provider"] == "google.billing"


def test_commands_that_alerts_tell_are_commands_of_spot(stack: dict[str, Any]) -> None:
    from infra.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    told = {
        name
        for policy in stack["resource"]["google_monitoring_alert_policy"].values()
        for name in re.findall(r"\bspot (\w+)", policy["documentation"]["content"])
    }
    assert {"logs", "ssh", "doctor", "drill", "start"} == told
    assert told <= known


def test_all_experiments_of_a_grid_are_watched_together(synthesized: Synthesize) -> None:
    example = synthesized("ablations")
    experiments = {run.run_id for run in example.deployment.run.experiments()}
    assert len(experiments) > 1
    stack = example.stacks["observability"]
    for metric in metrics(stack).values():
        named = re.search(r"jsonPayload\.RUN_ID=\(([^)]*)\)", metric["filter"])
        assert named
        assert set(re.findall(r'"([^"]+)"', named[1])) == experiments
    fleets = example.stacks["ablations"]["resource"]
    groups = {group["name"] for kind in fleets if "group_manager" in kind for group in fleets[kind].values()}
    watched = {name for query in _alert_queries(stack) for name in re.findall(r'instance_group_name=~"([^"]*)"', query)}
    assert {name for names in watched for name in names.split("|")} == groups


def test_stacks_are_built_one_after_the_other_and_observability_last(example: Synthesized) -> None:
    stacks = [stack.name for stack in read_stacks(example.out)]
    fleet = "ablations" if example.deployment.run.ablations else "fleet"
    assert [name for name in stacks if name != "continuous-integration"] == [
        "foundation",
        "packages",
        fleet,
        "observability",
    ]
    assert ("continuous-integration" in stacks) == (example.deployment.cloud.github is not None)


def test_what_vms_install_from_is_what_is_put_into_the_bucket_and_stays_there(synthesized: Synthesize) -> None:
    example = synthesized("production")
    (bundle,) = example.stacks["packages"]["resource"]["google_storage_bucket_object"].values()
    (template,) = example.stacks["fleet"]["resource"]["google_compute_instance_template"].values()
    assert template["metadata"]["spot-bundle"] == f"gs://{bundle['bucket']}/{bundle['name']}"
    assert bundle["deletion_policy"] == "ABANDON"
