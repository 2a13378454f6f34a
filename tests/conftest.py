from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def journal_as_before() -> Iterator[None]:
    """Undoes `journal.configure`: warnings of later tests' libraries are no records of the agent's."""
    root, google = logging.root, logging.getLogger("google")
    before = root.handlers[:], root.level, google.level, google.propagate
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level, google.level, google.propagate = before
