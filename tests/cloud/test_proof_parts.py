"""What the proof says of Terraform's own blocks, expressions, scripts, secrets and names, one mistake at a time."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.proof import bindings, names, order, stack
from infra.proof.app import App, NotSynthesized, prove, read
from infra.proof.expressions import plain, scan
from infra.proof.schema import Schema

Json = dict[str, Any]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema(found=bindings.load())


@pytest.fixture
def clean(schema: Schema) -> Json:
    return {
        "//": {"metadata": {"version": "0"}},
        "terraform": {
            "backend": {"gcs": {"bucket": "some-state", "prefix": "a"}},
            "required_providers": {"google": {"source": "hashicorp/google", "version": schema.version}},
        },
        "provider": {"google": [{"project": "some-project"}]},
        "data": {"google_project": {"here": {"project_id": "some-project"}}},
        "locals": {"place": "EU"},
        "resource": {
            "google_storage_bucket": {
                "bucket": {
                    "name": "some-${data.google_project.here.number}",
                    "location": "${local.place}",
                    "lifecycle_rule": [{"action": {"type": "Delete"}, "condition": {"age": 3}}],
                }
            },
            "google_compute_instance_template": {
                "template": {
                    "name_prefix": "a-",
                    "machine_type": "n2-standard-2",
                    "disk": [{"source_image": "debian"}],
                    "metadata": {"startup-script": "#!/usr/bin/env bash\necho $${HOME} ${local.place}\n"},
                }
            },
        },
        "output": {"url": {"value": "${google_storage_bucket.bucket.url}"}},
    }


def said(schema: Schema, spoilt: Json) -> list[str]:
    return [str(mistake) for mistake in stack.mistakes("s", spoilt, schema)]


def test_a_clean_stack_passes(schema: Schema, clean: Json) -> None:
    assert said(schema, clean) == []


def spoilt_at(clean: Json, path: str, value: Any) -> Json:
    """A copy with `value` at `path`; None takes what is there away."""
    broken = copy.deepcopy(clean)
    *above, last = path.split("/")
    at: Any = broken
    for step in above:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return broken


BUCKET = "resource/google_storage_bucket/bucket"
TEMPLATE = "resource/google_compute_instance_template/template"
SCRIPT = f"{TEMPLATE}/metadata/startup-script"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("terraform/required_providers/google/version", "~> 8.0", "the bindings are made for"),
        ("terraform/required_providers/google/source", "somebody/google", "hashicorp/google"),
        ("terraform/backend", None, "where no other operator finds it"),
        ("terraform/backend", {"local": {"path": "x"}}, "state goes to local"),
        ("terraform/backend/gcs/prefix", None, "terraform.backend.gcs.prefix: is required"),
        ("terraform/backend/gcs/prefx", "a", "did you mean prefix?"),
        ("terraform/backend/gcs/access_token", "a", "a secret"),
        ("terraform/backend/gcs/bucket", "${local.place}", "must be plain text"),
        ("module", {"a": {"source": "b"}}, "can't be checked"),
        ("provider/google/0/projct", "a", "did you mean project?"),
        ("provider/google/0/access_token", "ya29.something", "a secret would lie in state"),
        ("data/google_project/here/project_idd", "a", "did you mean project_id?"),
        ("data/google_projekt", {"here": {}}, "did you mean google_project?"),
        (f"{BUCKET}/lifecycle_rule/0/action/type", "Remove", "can't be 'Remove'"),
        (f"{BUCKET}/lifecycle_rule/0/action", None, "lifecycle_rule[0].action: is required"),
        (f"{BUCKET}/lifecycle_rule/0/condition/age", "3", "is text, and is a number"),
        (f"{BUCKET}/lifecycle_rule/0/condition/ages", 3, "did you mean age?"),
        (f"{BUCKET}/lifecycle_rule/0/condition", [{"age": 1}, {"age": 2}], "is there 2 times"),
        (f"{BUCKET}/self_link", "a", "can only be read"),
        (f"{BUCKET}/lifecycle", {"prevent_destory": True}, "did you mean prevent_destroy?"),
        (f"{BUCKET}/lifecycle", {"ignore_changes": ["labls"]}, "did you mean labels?"),
        (f"{BUCKET}/provider", "google.other", "there is no provider google.other"),
        (f"{BUCKET}/dynamic", {"cors": {}}, "a dynamic block can't be checked"),
        (f"{BUCKET}/location", "${local.plaice}", "did you mean place?"),
        (f"{BUCKET}/location", "${var.place}", "${var.place} is not there"),
        (f"{BUCKET}/location", "${each.value}", "outside of a repeated block"),
        (f"{BUCKET}/location", "${data.google_project.here.numbr}", "did you mean number?"),
        (f"{BUCKET}/location", "${data.google_project.her.number}", "did you mean here?"),
        (f"{BUCKET}/location", '${upper("${local.plaice}")}', "local.plaice"),
        (f"{BUCKET}/name", "${google_storage_bucket.bucket.url}", "needs itself"),
        (f"{BUCKET}/labels", {"${local.gone}": "x"}, "local.gone"),
        ("locals/place", "${google_storage_bucket.bucket.location}", "needs itself"),
        ("output/url/value", "${google_storage_bucket.bucket.urll}", "did you mean url?"),
        (SCRIPT, "#!/usr/bin/env bash\necho ${HOME}\n", "${HOME} is not there"),
        (SCRIPT, "#!/usr/bin/env bash\necho ${HOME:-/}\n", "write $${"),
        (SCRIPT, "#!/usr/bin/env bash\necho ${#list[@]}\n", "is no expression"),
        (SCRIPT, "#!/usr/bin/env bash\ncurl -w %{http_code} x\n", "begins a directive"),
        (SCRIPT, "#!/usr/bin/env bash\necho $$${HOME}\n", "is escaped twice"),
        (SCRIPT, "#!/usr/bin/env bash\nif true; then\n", "bash can't read it"),
        (SCRIPT, "echo hello\n", "has no #! line"),
        (f"{TEMPLATE}/metadata/key", "-----BEGIN PRIVATE KEY-----", "looks like a secret"),
        (f"{TEMPLATE}/metadata/run", f"env: {{HF_TOKEN: {'a' * 24}}}", "looks like a secret"),
        ("resource/google_service_account_key", {"k": {"service_account_id": "a"}}, "a key would lie in the state"),
    ],
)
def test_one_mistake_is_named(schema: Schema, clean: Json, path: str, value: Any, words: str) -> None:
    found = said(schema, spoilt_at(clean, path, value))
    assert any(words in line for line in found), found


def test_a_deprecated_field_is_told(schema: Schema, clean: Json) -> None:
    confidential = [{"enable_confidential_compute": True}]
    (told,) = said(schema, spoilt_at(clean, f"{TEMPLATE}/confidential_instance_config", confidential))
    assert "confidential_instance_config[0].enable_confidential_compute: is deprecated: will be deprecated in a" in told


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("plain", []),
        ("$${a.b} %%{ if }", []),
        ("a-${x_y.z.name}-b", ["x_y.z.name"]),
        ('${join(",", [for k, v in local.m : "${k}=${var.v}"])}', ["local.m", "var.v"]),
        ("${x_y.z[0].name == null ? local.a : local.b}", ["x_y.z[0].name", "local.a", "local.b"]),
        ("${x_y.z.*.name}", ["x_y.z.*.name"]),
        ('${{a = local.b, "c" = "}"}}', ["local.b"]),
        ('${local.a["k"].b} $${no} ${local.c}', ['local.a["k"].b', "local.c"]),
    ],
)
def test_what_an_expression_refers_to(text: str, references: list[str]) -> None:
    scanned = scan(text)
    assert [reference.text for reference in scanned.references] == references
    assert scanned.troubles == []


def test_an_expression_without_an_end_is_told() -> None:
    assert scan("a ${local.b").troubles
    assert scan('a ${"b}').troubles


def test_a_script_is_read_as_the_vm_gets_it() -> None:
    assert plain("a $${B:-c} ${local.d} %%{http_code} $E") == "a ${B:-c} x %{http_code} $E"


def _two(first: Json, second: Json, *, of_type: str = "google_compute_network") -> Iterator[str]:
    stacks = {
        name: {"terraform": {"backend": {"gcs": {"prefix": name}}}, "resource": {of_type: {"one": body}}}
        for name, body in (("a", first), ("b", second))
    }
    return (str(mistake) for mistake in names.mistakes(stacks))


def test_a_name_is_claimed_once_in_its_place() -> None:
    (told,) = _two({"name": "net"}, {"name": "net", "description": "another"})
    assert told.startswith(
        "b: google_compute_network.one: is called or says the same as google_compute_network.one of a"
    )
    assert not list(_two({"name": "net", "region": "x"}, {"name": "net", "region": "y"}))
    assert not list(_two({"name_prefix": "net-"}, {"name_prefix": "net-"}))


def test_a_member_gets_a_role_once() -> None:
    of_type = "google_secret_manager_secret_iam_member"
    ann = {"secret_id": "key", "role": "r", "member": "user:ann@example.org"}
    assert len(list(_two(ann, dict(ann), of_type=of_type))) == 1
    assert not list(_two(ann, {**ann, "member": "user:bob@example.org"}, of_type=of_type))
    mine = {**ann, "secret_id": "${google_secret_manager_secret.key.id}"}
    assert not list(_two(mine, dict(mine), of_type=of_type)), "two stacks' expressions were compared"


def test_two_stacks_never_share_a_state() -> None:
    same = {"terraform": {"backend": {"gcs": {"bucket": "s", "prefix": "p"}}}}
    assert "has its state where a has it" in str(next(names.mistakes({"a": same, "b": same})))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_schema_is_kept_and_a_broken_cache_or_none_costs_only_time(tmp_path: Path) -> None:
    first = bindings.load(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert bindings.load(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert bindings.load(kept / "no-folder") == first


def test_a_name_that_is_there_twice_in_one_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stacks/one").mkdir(parents=True)
    (tmp_path / "stacks/one/cdk.tf.json").write_text('{"resource": {}, "resource": {}}')
    (tmp_path / "manifest.json").write_text('{"stacks": {}}')
    with pytest.raises(NotSynthesized, match="'resource' twice"):
        read(tmp_path)


def test_a_folder_without_stacks_is_told_from_a_clean_one(tmp_path: Path) -> None:
    with pytest.raises(NotSynthesized, match="no stacks"):
        read(tmp_path)
    assert prove(App(stacks={}, before={})).mistakes == []


def test_what_names_another_as_text_waits_for_it_in_its_stack_or_after_that(clean: Json) -> None:
    """A grant of a role that was not there yet failed three of seven first deployments."""

    def said(*stacks: Json, **before: list[str]) -> list[str]:
        return [str(one) for one in order.mistakes(dict(zip("ab", stacks, strict=False)), before)]

    def stack(of_type: str, **body: Any) -> Json:
        return {"provider": {"google": [{"project": "p"}]}, "resource": {of_type: {"it": body}}}

    role, account = (
        stack("google_project_iam_custom_role", role_id="s.r"),
        stack("google_service_account", account_id="x"),
    )
    grant = stack("google_project_iam_member", role="projects/p/roles/s.r", member="user:ann")
    together = {**grant, "resource": grant["resource"] | role["resource"]}
    (told,) = said(together)
    assert "google_project_iam_member.it.role: names google_project_iam_custom_role.it of a" in told
    together["resource"]["google_project_iam_member"]["it"]["depends_on"] = ["google_project_iam_custom_role.it"]
    assert said(together) == []
    assert len(said(role, grant)) == 1
    assert said(role, grant, b=["a"]) == []
    like = stack("google_project_iam_member", role="projects/p/roles/s.r2", member="user:mx@p.iam.gserviceaccount.com")
    assert said(role, like) == [], "another name that begins or ends so"
    assert len(said(account, stack("google_project_iam_member", member="x@p.iam.gserviceaccount.com"))) == 1
    enabled = stack("google_project_service", service="iam.googleapis.com")
    assert "does not wait for iam.googleapis.com" in said(enabled, role)[0]
    assert "nothing turns cloudresourcemanager" in said(enabled, stack("google_project_iam_member", role="r"))[0]
    assert "nobody has said" in said(stack("google_pubsub_topic", name="t"))[0]


def test_the_command_ends_with_1_for_a_mistake_and_0_without(tmp_path: Path, clean: Json) -> None:
    def run(found: Json) -> subprocess.CompletedProcess[str]:
        (tmp_path / "stacks/one").mkdir(parents=True, exist_ok=True)
        (tmp_path / "stacks/one/cdk.tf.json").write_text(json.dumps(found))
        (tmp_path / "manifest.json").write_text(json.dumps({"stacks": {"one": {}}}))
        command = [sys.executable, "-m", "infra.proof", str(tmp_path)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)

    assert run(clean).returncode == 0
    told = run(spoilt_at(clean, f"{BUCKET}/locaton", "EU"))
    assert told.returncode == 1
    assert "one: google_storage_bucket.bucket.locaton: is unknown\n    fix: did you mean location?" in told.stdout
