"""Tokens from the metadata server: fetched, refreshed, and never shown.

google-auth reads `GCE_METADATA_HOST` when it is imported, so each scenario has a process of its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

from infra.local.metadata import MetadataServer
from infra.local.storage.control import StorageControl
from infra.local.storage.iam import Rule
from tests.agent.store.answering import dribbled, serving
from tests.agent.store.conftest import BucketPlace

_WHO = "vm@project.iam.gserviceaccount.com"


class Tokens:
    """Mints tokens that the storage server knows, each for as long as told."""

    def __init__(self, server: StorageControl, *lifetimes: float | None) -> None:
        self._server = server
        self._lifetimes = itertools.chain(lifetimes, itertools.repeat(None))
        self.minted: list[str] = []

    def __call__(self, account: str, _lifetime: float) -> str:
        self.minted.append(f"secret-{len(self.minted)}-token")
        self._server.token(self.minted[-1], account, lifetime_s=next(self._lifetimes))
        return self.minted[-1]


def _run(script: str, place: BucketPlace, metadata: MetadataServer, tokens: Tokens) -> str:
    prelude = "import logging, sys; logging.basicConfig(level=logging.DEBUG)\nfrom agent.store import *\n"
    # Google's loggers do not pass on what they say unless somebody listens.
    prelude += "logging.getLogger('google').addHandler(logging.StreamHandler())\n"
    prelude += "logging.getLogger('google').setLevel(logging.DEBUG)\nstore = open_store(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + script, place.store.url],
        env={**os.environ, "STORAGE_EMULATOR_HOST": place.server.url, "GCE_METADATA_HOST": metadata.host},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert tokens.minted
    assert not any(token in output for token in tokens.minted), "a token was logged"
    return output


def test_a_vm_that_may_create_but_not_delete_can_neither_overwrite_nor_delete_a_milestone(
    bucket: BucketPlace,
) -> None:
    tokens = Tokens(bucket.server)
    bucket.store.create("milestones/one", b"weights", timeout=5)
    bucket.server.iam([Rule(identity=_WHO, actions=frozenset({"create", "get", "list"}))])
    script = """
for attempt in (
    lambda: store.replace("milestones/one", b"other", timeout=5),
    lambda: store.delete("milestones/one", timeout=5),
):
    try:
        attempt()
    except Forbidden as error:
        assert "vm@project.iam.gserviceaccount.com" in str(error) and "delete" in str(error), error
    else:
        raise SystemExit("it was allowed")
store.create("new", b"other", timeout=5)
for attempt in (
    lambda: store.create("milestones/one", b"other", timeout=5),
    lambda: store.copy("new", "milestones/one", timeout=5),
):
    try:
        attempt()
    except AlreadyExists:
        pass
    else:
        raise SystemExit("it was allowed")
assert store.read("milestones/one", timeout=5) == b"weights"
assert store.copy("new", "milestones/two", timeout=5).size == 5
"""
    with MetadataServer(service_account=_WHO, mint=tokens) as metadata:
        _run(script, bucket, metadata, tokens)
    assert len(tokens.minted) == 1


def test_a_refused_token_is_replaced_once(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server, 0.0)
    # With this margin every question to the metadata server mints anew.
    with MetadataServer(mint=tokens, token_margin=1e6) as metadata:
        _run('store.create("one", b"x", timeout=5)', bucket, metadata, tokens)
    assert len(tokens.minted) == 2


def test_threads_that_start_together_fetch_one_token(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server)
    script = """
import threading
from concurrent.futures import ThreadPoolExecutor
start = threading.Barrier(8)
def create(number):
    start.wait(timeout=10)
    store.create(f"part-{number}", b"x", timeout=10)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(create, range(8)))
"""
    with MetadataServer(mint=tokens, token_margin=1e6) as metadata:
        _run(script, bucket, metadata, tokens)
    assert len(tokens.minted) == 1


def test_tokens_refused_twice_in_a_row_are_fetched_anew_not_the_end(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server, 0.0, 0.0)
    with MetadataServer(mint=tokens, token_margin=1e6) as metadata:
        _run('store.create("one", b"x", timeout=10)', bucket, metadata, tokens)
    assert len(tokens.minted) == 3


def test_a_token_that_stays_refused_is_forbidden_after_a_few_others(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server, *[0.0] * 20)
    script = """
try:
    store.create("one", b"x", timeout=30)
except Forbidden as error:
    assert "storage.objects.create" in str(error) and error.may_pass, error
else:
    raise SystemExit("it was allowed")
"""
    with MetadataServer(mint=tokens, token_margin=1e6) as metadata:
        _run(script, bucket, metadata, tokens)
    assert len(tokens.minted) == 6


def test_warm_replaces_a_token_in_its_last_minutes_and_keeps_a_good_one(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server)
    script = """
store.warm(2, timeout=5)
store.warm(2, timeout=5)
store.create("one", b"x", timeout=5)
"""
    with MetadataServer(mint=tokens, token_lifetime=200, token_margin=1e6) as metadata:
        _run(script, bucket, metadata, tokens)
    assert len(tokens.minted) == 2, "each warm, and only warm, replaces a token that ends soon"

    tokens = Tokens(bucket.server)
    with MetadataServer(mint=tokens, token_lifetime=3600, token_margin=1e6) as metadata:
        _run(script.replace('"one"', '"two"'), bucket, metadata, tokens)
    assert len(tokens.minted) == 1


def test_a_metadata_server_that_is_away_for_a_moment_is_waited_for(bucket: BucketPlace) -> None:
    tokens = Tokens(bucket.server)
    with MetadataServer(mint=tokens) as metadata:
        metadata.fail_for(600.0)

        def come_back() -> None:
            if metadata.wait_for(lambda server: server.counts[503] > 1, 60.0):
                metadata.fail_for(0.0)

        threading.Thread(target=come_back, daemon=True).start()
        output = _run('store.create("one", b"x", timeout=20)', bucket, metadata, tokens)
        assert metadata.counts[503] > 1
    assert "unavailable on attempt" not in output, "google-auth's own retry, which knows no deadline, took over"


def test_a_metadata_server_that_is_gone_is_unavailable_at_the_deadline(bucket: BucketPlace) -> None:
    script = """
store.create("one", b"x", timeout=5)
try:
    store.create("two", b"x", timeout=0.5)
except Unavailable as error:
    assert "access token" in str(error), error
else:
    raise SystemExit("where from did it have a token?")
"""
    tokens = Tokens(bucket.server)

    def mint_a_last_one(account: str, lifetime: float) -> str:
        metadata.fail_for(600)
        return tokens(account, lifetime)

    # A token of ten seconds is good for one request at most.
    with MetadataServer(mint=mint_a_last_one, token_lifetime=10) as metadata:
        _run(script, bucket, metadata, tokens)


def test_a_metadata_server_that_dribbles_its_answer_takes_no_longer_than_the_call(bucket: BucketPlace) -> None:
    script = """
import time
began = time.monotonic()
try:
    store.create("one", b"x", timeout=0.5)
except Unavailable as error:
    print(time.monotonic() - began)
"""
    with serving(dribbled(b"HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n")) as told:
        done = subprocess.run(
            [sys.executable, "-c", f"from agent.store import *\nstore = open_store('{bucket.store.url}')\n{script}"],
            env={
                **os.environ,
                "STORAGE_EMULATOR_HOST": bucket.server.url,
                "GCE_METADATA_HOST": told.url.removeprefix("http://"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert float(done.stdout) < 1.5
