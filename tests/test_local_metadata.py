"""The local metadata server answers as the real one does (semantics: shared facts on the metadata server)."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from infra.local.metadata import MetadataServer

GOOGLE = {"Metadata-Flavor": "Google"}
TOKEN = "instance/service-accounts/default/token"


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.etag = response.headers.get("ETag", "")
        self.text = response.read().decode()


def ask(
    server: MetadataServer,
    path: str,
    method: str = "GET",
    headers: dict[str, str] = GOOGLE,
    body: str | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(server.host, timeout=20)
    try:
        connection.request(method, f"/computeMetadata/v1/{path}", headers=headers, body=body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with MetadataServer(name="vm-3", zone="us-central1-b", attributes={"run": "demo"}) as server:
        yield server


@pytest.fixture
def poll(server: MetadataServer) -> Iterator[Callable[[str], Future[Answer]]]:
    """Start a request in the background and return once it hangs at the server."""
    with ThreadPoolExecutor(4) as pool:

        def start(query: str, path: str = "instance/preempted") -> Future[Answer]:
            future = pool.submit(ask, server, f"{path}?wait_for_change=true&{query}")
            assert server.wait_for(lambda s: s.polls[path.strip("/")] > 0, 10)
            return future

        yield start
        server.close()  # frees whatever still hangs


def test_a_request_without_the_flavor_header_is_refused(server: MetadataServer) -> None:
    answer = ask(server, "instance/preempted", headers={})
    assert answer.status == 403
    assert "FALSE" not in answer.text


def test_a_forwarded_request_is_refused(server: MetadataServer) -> None:
    assert ask(server, TOKEN, headers=GOOGLE | {"X-Forwarded-For": "10.0.0.9"}).status == 403


def test_every_answer_carries_the_flavor_header(server: MetadataServer) -> None:
    for path in ("instance/preempted", "instance/nothing", "instance/?recursive=true", "instance"):
        assert ask(server, path).headers["Metadata-Flavor"] == "Google"
    server.fail_for(60)
    assert ask(server, "instance/preempted").headers["Metadata-Flavor"] == "Google"


def test_etags_are_per_path_and_a_directorys_covers_what_is_in_it(server: MetadataServer) -> None:
    def etags() -> list[str]:
        return [ask(server, path).etag for path in ("instance/preempted", "instance/name", "instance/")]

    before = etags()
    server.set("instance/preempted", "TRUE")
    after = etags()
    assert len(set(before)) == 3
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False]


def test_a_poll_hangs_until_its_value_changes(server: MetadataServer, poll: Callable[..., Future[Answer]]) -> None:
    future = poll("last_etag=" + ask(server, "instance/preempted").etag)
    server.set("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    server.set("instance/preempted", "FALSE")  # no change
    assert ask(server, "instance/id").status == 200  # the server has gone on; the poll must not have
    assert not future.done()
    server.set("instance/preempted", "TRUE")
    assert future.result(10).text == "TRUE"


def test_a_recursive_poll_wakes_on_any_change_below(
    server: MetadataServer, poll: Callable[..., Future[Answer]]
) -> None:
    future = poll("recursive=true", "instance/attributes/")
    server.set("instance/attributes/price-cap", "2.50")
    assert json.loads(future.result(10).text)["price-cap"] == "2.50"


def test_a_change_between_two_polls_is_answered_at_once(server: MetadataServer) -> None:
    etag = ask(server, "instance/preempted").etag
    server.set("instance/preempted", "TRUE")
    server.set("instance/preempted", "FALSE")  # the value is the old one again, yet it changed
    answer = ask(server, f"instance/preempted?wait_for_change=true&last_etag={etag}&timeout_sec=15")
    assert (answer.text, server.polls["instance/preempted"]) == ("FALSE", 0)
    assert answer.etag != etag


@pytest.mark.parametrize("seed", ["0", "NONE"])
def test_the_seed_etags_never_match(server: MetadataServer, seed: str) -> None:
    answer = ask(server, f"instance/preempted?wait_for_change=true&last_etag={seed}")
    assert (answer.status, answer.text) == (200, "FALSE")


def test_timeout_sec_answers_with_the_current_value(
    server: MetadataServer, poll: Callable[..., Future[Answer]]
) -> None:
    future = poll("timeout_sec=1")
    answer = future.result(10)
    assert (answer.status, answer.text) == (200, "FALSE")
    assert answer.etag == ask(server, "instance/preempted").etag


def test_a_503_spell_ends_hanging_polls_and_then_itself() -> None:
    now = [0.0]
    with MetadataServer(clock=lambda: now[0]) as server, ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, server, "instance/preempted?wait_for_change=true")
        assert server.wait_for(lambda s: s.polls["instance/preempted"] == 1, 10)
        server.fail_for(5)
        assert future.result(10).status == 503
        assert ask(server, "instance/id").status == 503
        now[0] = 5.0
        assert ask(server, "instance/id").status == 200


def test_a_poll_whose_client_left_is_forgotten(server: MetadataServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=10)
    connection.request("GET", "/computeMetadata/v1/instance/preempted?wait_for_change=true", headers=GOOGLE)
    assert server.wait_for(lambda s: s.polls["instance/preempted"] == 1, 10)
    connection.close()
    assert server.wait_for(lambda s: s.polls["instance/preempted"] == 0, 10)


def test_an_absent_attribute_is_404_without_etag_even_when_waited_for(server: MetadataServer) -> None:
    for query in ("", "?wait_for_change=true"):
        answer = ask(server, "instance/attributes/nothing" + query)
        assert (answer.status, answer.etag) == (404, "")
    server.set("instance/attributes/later", "1")
    assert ask(server, "instance/attributes/later").text == "1"
    server.delete("instance/attributes/later")
    assert ask(server, "instance/attributes/later").status == 404


def test_directories_list_nest_and_redirect_as_the_real_ones(server: MetadataServer) -> None:
    listing = ask(server, "instance/").text.splitlines()
    assert {"preempted", "scheduling/", "service-accounts/", "attributes/"} <= set(listing)
    nested = json.loads(ask(server, "instance/?recursive=true").text)
    assert nested["maintenanceEvent"] == "NONE"
    assert nested["scheduling"] == {
        "automaticRestart": "FALSE",
        "onHostMaintenance": "TERMINATE",
        "preemptible": "TRUE",
    }
    assert nested["attributes"]["enable-guest-attributes"] == "TRUE"  # a user's key keeps its spelling
    assert nested["zone"].endswith("/zones/us-central1-b")
    text = ask(server, "instance/scheduling/?recursive=true&alt=text").text
    assert "preemptible TRUE" in text.splitlines()
    redirect = ask(server, "instance/scheduling?recursive=true")
    assert redirect.status == 301
    assert redirect.headers["Location"] == "/computeMetadata/v1/instance/scheduling/?recursive=true"


def test_alt_json_quotes_a_leaf(server: MetadataServer) -> None:
    assert ask(server, "instance/preempted?alt=json").text == '"FALSE"'
    assert isinstance(json.loads(ask(server, "instance/id?alt=json").text), int)
    assert ask(server, "instance/name").text == "vm-3"


def test_a_token_is_kept_until_shortly_before_it_expires_and_never_listed_recursively() -> None:
    now = [0.0]
    minted: list[str] = []

    def mint(account: str, lifetime: float) -> str:
        minted.append(f"{account}/{lifetime:.0f}/{len(minted)}")
        return minted[-1]

    with MetadataServer(
        service_account="a@b.iam.gserviceaccount.com", mint=mint, token_lifetime=3600, clock=lambda: now[0]
    ) as server:
        first = json.loads(ask(server, TOKEN).text)
        assert first == {
            "access_token": "a@b.iam.gserviceaccount.com/3600/0",
            "expires_in": 3600,
            "token_type": "Bearer",
        }
        now[0] = 3299.0
        assert json.loads(ask(server, TOKEN).text)["access_token"] == first["access_token"]
        now[0] = 3301.0
        by_email = TOKEN.replace("default", "a@b.iam.gserviceaccount.com")
        assert json.loads(ask(server, by_email).text)["access_token"] == minted[1] != minted[0]
        listing = ask(server, "instance/?recursive=true").text
        assert not [token for token in minted if token in listing]
        assert "token" in ask(server, "instance/service-accounts/default/").text.split()


def test_guest_attributes_can_be_written_read_listed_and_removed(server: MetadataServer) -> None:
    path = "instance/guest-attributes/spot/step"
    assert ask(server, path).status == 404
    assert ask(server, path, "PUT", body="4100").status == 200
    assert ask(server, path).text == "4100"
    assert server.get(path) == "4100"
    assert ask(server, "instance/guest-attributes/spot/").text == "step\n"
    assert ask(server, path, "DELETE").status == 200
    assert ask(server, path).status == 404


def test_nothing_but_guest_attributes_can_be_written(server: MetadataServer) -> None:
    assert ask(server, "instance/preempted", "PUT", body="TRUE").status == 405
    assert server.get("instance/preempted") == "FALSE"
    assert ask(server, "instance/service-accounts/default/email", "PUT", body="me").status == 405
    assert ask(server, "instance/guest-attributes/spot", "PUT", body="1").status == 405
    server.set("instance/attributes/enable-guest-attributes", "FALSE")
    assert ask(server, "instance/guest-attributes/spot/step", "PUT", body="1").status == 403


def test_a_notice_does_not_wait_for_a_slow_mint() -> None:
    minting, go_on = threading.Event(), threading.Event()

    def mint(_account: str, _lifetime: float) -> str:
        minting.set()
        assert go_on.wait(10)
        return "late"

    with MetadataServer(mint=mint) as server, ThreadPoolExecutor(1) as pool:
        token = pool.submit(ask, server, TOKEN)
        assert minting.wait(10)
        server.set("instance/preempted", "TRUE")
        assert ask(server, "instance/preempted").text == "TRUE"
        assert not token.done()
        go_on.set()
        assert json.loads(token.result(10).text)["access_token"] == "late"


def test_googles_own_client_gets_its_token_here() -> None:
    """google-auth reads GCE_METADATA_HOST when it is imported: hence a process of its own."""
    program = """
import google.auth, google.auth.transport.requests as transport
credentials, project = google.auth.default()
assert type(credentials).__module__ == "google.auth.compute_engine.credentials", type(credentials)
credentials.refresh(transport.Request())
print(project, credentials.service_account_email, credentials.token, credentials.valid)
"""
    with MetadataServer(project="my-project", mint=lambda account, _: "token-of-" + account) as server:
        env = {"GCE_METADATA_HOST": server.host, "GCE_METADATA_IP": server.host, "HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=env | {"CLOUDSDK_CONFIG": "/nonexistent", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    account = "spot-training@local-project.iam.gserviceaccount.com"
    assert done.stdout.split() == ["my-project", account, "token-of-" + account, "True"], done.stderr
