"""The proof without the cloud: the stacks pass it, and no seeded mistake does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra.proof import bindings, stack
from infra.proof.app import prove, read
from infra.proof.schema import Schema
from tests.cloud.examples import EXAMPLES
from tests.cloud.seeded import seeded

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize
    from tests.cloud.examples import Synthesized

LEAST_SEEDED = 5


@pytest.fixture(scope="session")
def schema() -> Schema:
    return Schema(found=bindings.load())


def test_every_example_passes(example: Synthesized) -> None:
    assert [str(mistake) for mistake in prove(read(example.out)).mistakes] == []


@pytest.mark.slow
def test_every_seeded_mistake_is_caught_where_it_is(synthesized: Synthesize, schema: Schema) -> None:
    seen: dict[tuple[str, str], int] = {}
    missed = []
    for name in EXAMPLES:
        for stack_name, clean in synthesized(name).stacks.items():
            for kind in ("resource", "data"):
                for of_type in clean.get(kind, {}):
                    if (kind, of_type) in seen:
                        continue
                    mistakes = seeded(clean, kind=kind, of_type=of_type, schema=schema)
                    seen[kind, of_type] = len(mistakes)
                    for one in mistakes:
                        paths = {found.path for found in stack.mistakes(stack_name, one.stack, schema)}
                        if not any(path.startswith(one.path) for path in paths):
                            missed.append(f"{one.path}: {one.what}: found {sorted(paths)}")
    assert missed == []
    assert len(seen) >= 20
    assert {of_type: count for of_type, count in seen.items() if count < LEAST_SEEDED} == {}
