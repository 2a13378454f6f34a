"""data.pictures: what a kind or a source doesn't read is refused by its name, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.config import Data
from agent.config.pictures import refused_pictures

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"source": "./here", "text_field": "body"}, "text_field", "kind vlm does not use it"),
    ({"source": "./here", "include": ["*.md"]}, "include", "kind vlm does not use it"),
    ({"source": "stdlib"}, "source", "no pictures in the standard library"),
    ({"source": "./here", "pictures": {"broken_limit": 5}}, "broken_limit", "on_broken: fail leaves nothing out"),
    (
        {"source": "./here", "pictures": {"mixture": [{"records": ["*.tar"]}], "records": ["b.jsonl"]}},
        "records",
        "each part of the mixture",
    ),
    ({"source": "hf://some/set", "pictures": {"records": ["*.tar"]}}, "records", "has no files of records"),
    ({"source": "hf://some/set", "pictures": {"eval_records": ["*.tar"]}}, "eval_records", "has no files of records"),
    ({"source": "./here", "pictures": {"cache_gb": 5}}, "cache_gb", "not read over a network"),
    (
        {"source": "./here", "eval_fraction": 0.1, "pictures": {"eval_records": ["e.jsonl"]}},
        "eval_fraction",
        "says what to evaluate on",
    ),
]


@pytest.mark.parametrize(("given", "key", "reason"), REFUSED, ids=[f"{key} {why}" for _, key, why in REFUSED])
def test_a_key_that_is_not_read_is_refused_with_what_to_do(given: dict[str, Any], key: str, reason: str) -> None:
    try:
        data = Data.model_validate(given)
    except ValidationError as error:
        (mistake,) = error.errors()
        assert mistake["loc"][-1] == key and reason in mistake["msg"] and mistake["ctx"]["fix"]
        return
    (refusal,) = refused_pictures("vlm", data.source, data.model_fields_set, data.pictures)
    assert refusal.where[-1] == key and reason in refusal.reason and refusal.fix


def test_what_is_read_is_taken() -> None:
    data = Data.model_validate({"source": "gs://bucket/here", "pictures": {"cache_gb": 5, "on_broken": "skip"}})
    assert not [*refused_pictures("arr-coc", data.source, data.model_fields_set, data.pictures)]
