from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud import storage as gcs
from google.oauth2.credentials import Credentials

from infra.local.storage.control import StorageControl
from infra.local.storage.iam import Action, Iam, Rule, Token

VM = "vm@project"


@pytest.fixture
def guarded(storage: StorageControl) -> StorageControl:
    """A VM that may work freely under runs/, and only create and read under milestones/."""
    storage.token("vm-token", VM)
    storage.token("admin-token", "admin@project")
    everything: frozenset[Action] = frozenset(["create", "get", "list", "delete", "update"])
    storage.iam(
        [
            Rule(identity="admin@project", actions=everything | {"buckets.get"}),
            Rule(identity=VM, actions=everything, bucket="bucket", prefix="runs/"),
            Rule(identity=VM, actions=frozenset(["create", "get"]), bucket="bucket", prefix="milestones/"),
            Rule(identity="*", effect="forbid", actions=frozenset(["delete"]), prefix="milestones/"),
        ]
    )
    return storage


def bucket_as(token: str) -> gcs.Bucket:
    return gcs.Client(project="local", credentials=Credentials(token)).bucket("bucket")


@pytest.fixture
def filled(guarded: StorageControl) -> gcs.Bucket:
    """The VM's view, with an object in each folder."""
    admin = bucket_as("admin-token")
    for name in ("runs/a", "milestones/a", "secret/a"):
        admin.blob(name).upload_from_string(b"data")
    return bucket_as("vm-token")


@pytest.mark.parametrize(
    ("act", "refusal"),
    [
        (lambda b: b.blob("runs/b").upload_from_string(b""), None),
        (lambda b: b.blob("runs/a").upload_from_string(b""), None),
        (lambda b: b.blob("runs/a").delete(), None),
        (lambda b: list(b.list_blobs(prefix="runs/")), None),
        (lambda b: b.blob("runs/missing").reload(), NotFound),
        (lambda b: b.blob("milestones/b").upload_from_string(b""), None),
        (lambda b: b.blob("milestones/b").rewrite(b.blob("runs/a")), None),
        (lambda b: b.blob("milestones/a").download_as_bytes(), None),
        (lambda b: b.blob("milestones/a").upload_from_string(b""), Forbidden),
        (lambda b: b.blob("milestones/a").upload_from_string(b"", if_generation_match=0), PreconditionFailed),
        (lambda b: b.blob("milestones/a").rewrite(b.blob("runs/a")), Forbidden),
        (lambda b: b.blob("milestones/a").compose([b.blob("runs/a")]), Forbidden),
        (lambda b: b.blob("milestones/a").create_resumable_upload_session(retry=None), Forbidden),
        (lambda b: b.blob("milestones/a").delete(), Forbidden),
        (lambda b: b.blob("milestones/a").patch(), Forbidden),
        (lambda b: b.move_blob(b.blob("milestones/a"), "runs/stolen"), Forbidden),
        (lambda b: list(b.list_blobs(prefix="milestones/")), Forbidden),
        (lambda b: list(b.list_blobs()), Forbidden),
        (lambda b: b.blob("milestones/missing").reload(), Forbidden),
        (lambda b: b.blob("secret/a").download_as_bytes(), Forbidden),
        (lambda b: b.blob("runs/copy").rewrite(b.blob("secret/a")), Forbidden),
        (lambda b: b.reload(), Forbidden),
    ],
)
def test_an_identity_can_do_what_its_rules_allow_and_nothing_else(
    filled: gcs.Bucket, act: Callable[[gcs.Bucket], object], refusal: type[GoogleAPICallError] | None
) -> None:
    if refusal is None:
        act(filled)
    else:
        with pytest.raises(refusal):
            act(filled)


def test_a_refused_overwrite_leaves_the_object_as_it_was(filled: gcs.Bucket) -> None:
    with pytest.raises(Forbidden, match=r"storage\.objects\.delete"):
        filled.blob("milestones/a").upload_from_string(b"changed")
    assert filled.blob("milestones/a").download_as_bytes() == b"data"


def test_a_forbidding_rule_beats_any_that_allows(filled: gcs.Bucket) -> None:
    with pytest.raises(Forbidden):
        bucket_as("admin-token").blob("milestones/a").delete()


def test_nobody_gets_in_without_a_token_or_with_a_wrong_one(filled: gcs.Bucket, http: httpx2.Client) -> None:
    path = "/storage/v1/b/bucket/o/runs%2Fa"
    anonymous = http.get(path)
    assert anonymous.status_code == 401 and "Anonymous caller" in anonymous.text
    answer = http.get(path, headers={"Authorization": "Bearer made-up"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "Invalid Credentials")
    assert "made-up" not in answer.text


def test_a_token_ends_with_its_lifetime() -> None:
    now = [0.0]
    iam = Iam(clock=lambda: now[0])
    iam.add_token(Token(token="t", identity=VM, lifetime_s=60))
    now[0] = 59.9
    assert iam.identify("Bearer t") == VM
    now[0] = 60.0
    with pytest.raises(Exception, match="Invalid Credentials"):
        iam.identify("Bearer t")


def test_an_expired_token_is_answered_with_401(storage: StorageControl, http: httpx2.Client) -> None:
    storage.token("short", VM, lifetime_s=0)
    answer = http.get("/storage/v1/b/bucket", headers={"Authorization": "Bearer short"})
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_resumable_upload_goes_on_in_the_name_of_who_began_it(filled: gcs.Bucket, http: httpx2.Client) -> None:
    session = filled.blob("runs/a").create_resumable_upload_session()
    assert http.put(session, content=b"changed").status_code == 200
    assert filled.blob("runs/a").download_as_bytes() == b"changed"


def test_a_batch_is_held_to_the_same_rules(filled: gcs.Bucket) -> None:
    with pytest.raises(Forbidden), filled.client.batch():
        filled.blob("milestones/a").delete()
    assert filled.blob("milestones/a").download_as_bytes() == b"data"


def test_a_client_can_ask_what_it_may_do(filled: gcs.Bucket) -> None:
    asked = ["storage.objects.create", "storage.buckets.get"]
    assert bucket_as("admin-token").test_iam_permissions(asked) == asked
    assert filled.test_iam_permissions(asked) == []


def test_the_log_of_requests_names_identities_and_no_token(guarded: StorageControl, filled: gcs.Bucket) -> None:
    filled.blob("runs/b").upload_from_string(b"data")
    last = [seen for seen in guarded.requests() if seen.action == "create"][-1]
    assert (last.identity, last.bucket, last.name, last.status) == (VM, "bucket", "runs/b", 200)
    assert "vm-token" not in repr(guarded.requests())
