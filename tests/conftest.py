from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

_A_MACHINE_OF_ITS_OWN = ("tests/vm/", "tests/systemd/")
"""Tests that start a Docker daemon, systemd or QEMU: one after the other, in one process."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests go to the processes of `make test-slow` by file, the machines' first: they take longest, and wait."""

    def machine(item: pytest.Item) -> bool:
        return item.nodeid.startswith(_A_MACHINE_OF_ITS_OWN)

    for item in items:
        if item.get_closest_marker("slow"):
            group = "machines" if machine(item) else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not machine(item))


@pytest.fixture
def journal_as_before() -> Iterator[None]:
    """Undoes `journal.configure`: warnings of later tests' libraries are no records of the agent's."""
    root, google = logging.root, logging.getLogger("google")
    before = root.handlers[:], root.level, google.level, google.propagate
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level, google.level, google.propagate = before
