"""What a check finds: where, what is wrong, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mistake:
    stack: str
    path: str
    """Where in the stack's JSON, such as `google_storage_bucket.bucket.lifecycle_rule[0].action`."""
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.stack}: {self.path}: {self.reason}"
        return f"{text}\n    fix: {self.fix}" if self.fix else text


def suggest(word: str, allowed: Iterable[str], *, most: int = 12) -> str:
    """The allowed word that is meant, or all of them where there are few enough to read."""
    words = sorted(allowed)
    folded = {known.casefold(): known for known in reversed(words)}
    if near := difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6):
        return f"did you mean {folded[near[0]]}?"
    if not words:
        return "nothing can be written here"
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"allowed: {', '.join(words[:most])}{more}"
