from __future__ import annotations

import httpx2
from google.cloud import storage as gcs
from hypothesis import given
from hypothesis import strategies as st

from infra.local.storage.memory import Data
from infra.local.storage.objects import ListQuery, Storage

names = st.text(alphabet="ab/é\U0001f600", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))


@given(
    names=st.sets(names, max_size=12),
    prefix=st.text(alphabet="ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "b"]),
    start=st.text(alphabet="ab/", max_size=2),
    limit=st.integers(1, 4),
)
def test_pages_together_are_the_whole_listing(
    names: set[str], prefix: str, delimiter: str, start: str, limit: int
) -> None:
    bucket = Storage().create_bucket("bucket")
    for name in names:
        bucket.insert(name, Data(), {})

    seen_items, seen_prefixes, token = [], [], ""
    while True:
        page = bucket.list(ListQuery(prefix=prefix, delimiter=delimiter, start=start, limit=limit, token=token))
        assert len(page.items) + len(page.prefixes) <= limit
        seen_items += [item.name for item in page.items]
        seen_prefixes += page.prefixes
        if page.next_token is None:
            break
        token = page.next_token

    wanted = sorted((n for n in names if n.startswith(prefix) and n >= start), key=str.encode)
    cut = {n: n.find(delimiter, len(prefix)) if delimiter else -1 for n in wanted}
    assert seen_items == [n for n in wanted if cut[n] < 0]
    assert seen_prefixes == sorted({n[: cut[n] + len(delimiter)] for n in wanted if cut[n] >= 0}, key=str.encode)


def test_googles_client_lists_folders_pages_and_offsets(bucket: gcs.Bucket) -> None:
    for name in ("a/1", "a/2", "b/1", "c", "d"):
        bucket.blob(name).upload_from_string(b"")
    top = bucket.list_blobs(delimiter="/", page_size=2)
    pages = [[blob.name for blob in page] for page in top.pages]
    assert (pages, top.prefixes) == ([[], ["c", "d"]], {"a/", "b/"})
    assert [blob.name for blob in bucket.list_blobs(prefix="a/")] == ["a/1", "a/2"]
    assert [blob.name for blob in bucket.list_blobs(start_offset="a/2", end_offset="d")] == ["a/2", "b/1", "c"]
    assert [blob.name for blob in bucket.list_blobs(max_results=2)] == ["a/1", "a/2"]


def test_a_listing_parameter_that_is_not_played_is_refused_not_ignored(http: httpx2.Client) -> None:
    assert http.get("/storage/v1/b/bucket/o?matchGlob=**.json").status_code == 400


def test_a_page_token_made_up_is_refused(http: httpx2.Client) -> None:
    assert http.get("/storage/v1/b/bucket/o?pageToken=nonsense").status_code == 400
