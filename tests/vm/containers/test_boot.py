"""From power to the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.vm.containers.group import Group

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]


def test_a_run_that_nobody_disturbs_is_trained_to_its_end(toy: Callable[..., Group], reference: dict[str, Any]) -> None:
    group = toy()
    group.boot()
    assert group.finish() == reference
