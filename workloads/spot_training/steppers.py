"""Steppers: whatever's `step()` is an update. It says so before and after, so that no loop has to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.optim import Optimizer


def hook_step(stepper: Any, *, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call `before` and `after` around each `stepper.step()`."""
    if isinstance(stepper, Optimizer) and hasattr(stepper, "_optimizer_step_pre_hooks"):
        stepper.register_step_pre_hook(lambda *_: before())
        stepper.register_step_post_hook(lambda *_: after())
        return
    step = stepper.step

    @wraps(step)
    def hooked(*arguments: Any, **named: Any) -> Any:
        before()
        result = step(*arguments, **named)
        after()
        return result

    stepper.step = hooked
