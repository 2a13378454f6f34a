from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

_A_MACHINE_OF_ITS_OWN = ("tests/vm/", "tests/systemd/")
"""Tests that start a Docker daemon, systemd or QEMU: one after the other, in one process."""


def _lane(nodeid: str) -> str:
    return "machines" if nodeid.startswith(_A_MACHINE_OF_ITS_OWN) else nodeid.partition("::")[0]


class _Lanes(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """The tests of a file go to one process, and those of all machines to one."""

    def _split_scope(self, nodeid: str) -> str:
        return _lane(nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The machines' tests first: they take longest, and wait."""
    items.sort(key=lambda item: _lane(item.nodeid) != "machines")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Lanes | None:
    """`--dist loadfile` is by lanes."""
    return _Lanes(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def journal_as_before() -> Iterator[None]:
    """Undoes `journal.configure`: warnings of later tests' libraries are no records of the agent's."""
    root, google = logging.root, logging.getLogger("google")
    before = root.handlers[:], root.level, google.level, google.propagate
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level, google.level, google.propagate = before
