"""Where a rehearsal strikes: at each kind of moment that the undisturbed run had, and at some that are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from infra.operate.rehearse.records import How, Strike

CHOSEN: Sequence[tuple[str, How]] = (
    ("forward", "notice"),
    ("backward", "notice"),
    ("update", "cut"),
    ("behind", "kill"),
    ("boundary", "notice"),
    ("behind", "notice"),
    ("evaluating", "notice"),
    ("evaluating", "cut"),
)
"""In this order: a second resume finds other faults than the first, and a step lost others than none."""
_HOWS: Sequence[How] = ("notice", "cut", "kill")
_FIRST = 2  # before it there is nothing yet that could be lost
_LAST = 2  # steps at the end, in which what a resume broke can show


def plan_strikes(moments: Iterable[tuple[str, int]], *, steps: int, drawn: int, seed: int) -> list[Strike]:
    """A strike for each of CHOSEN that has its moment in `moments`, and `drawn` more, over steps `_FIRST` to `steps`.

    They come in pairs, the second a step after the first: struck again as soon as it has come back.
    """
    seen: dict[str, list[int]] = {}
    for moment, step in sorted(set(moments), key=lambda each: each[1]):
        seen.setdefault(moment, []).append(step)
    numbers = random.Random(seed)  # noqa: S311 - repeatable, no secret
    wanted = [(moment, how) for moment, how in CHOSEN if moment in seen]
    wanted += [(numbers.choice(sorted(seen)), numbers.choice(_HOWS)) for _ in range(drawn if seen else 0)]
    last = max(_FIRST, steps - 1 - _LAST)
    strikes: list[Strike] = []
    for place, (moment, how) in enumerate(wanted):
        pair = place // 2
        step = _FIRST + pair * (last - _FIRST) // max(1, (len(wanted) + 1) // 2) + place % 2
        later = [at for at in seen[moment] if step <= at <= last]
        if later or step <= last:
            strikes.append(Strike(len(strikes) + 1, moment, min(later, default=step), how))
    strikes.sort(key=lambda strike: strike.step)
    return [Strike(life, each.moment, each.step, each.how) for life, each in enumerate(strikes, 1)]
