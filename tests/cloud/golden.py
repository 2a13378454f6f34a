"""Golden stacks: what each example synthesized to when somebody last looked at it, less what changes by itself.

The first example that has a stack is kept whole, STACK.json; of all others how they differ from it, STACK.diff, with
RUN for each run's own id, even where it is a word of something else. So a change to what all runs have shows once, and
what a run file changes can be read at a glance.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.proof.schema import COMMENT
from tests.cloud.examples import EXAMPLES

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize
    from tests.cloud.examples import Synthesized

FOLDER = Path(__file__).parent / "golden"

_ORDER = sorted(EXAMPLES, key=lambda name: (name != "production", name))
_LONG_SCRIPT = 2000
_CONTEXT = 2


def files(name: str, synthesized: Synthesize) -> dict[str, str]:
    """What is kept of an example: texts by file name."""
    return dict(_file(name, stack, synthesized) for stack in synthesized(name).stacks)


def _file(name: str, stack: str, synthesized: Synthesize) -> tuple[str, str]:
    first = next(other for other in _ORDER if stack in synthesized(other).stacks)
    if name == first:
        return f"{stack}.json", drawn(synthesized(name).stacks[stack])
    before, after = (_without_its_id(synthesized(one), stack).splitlines() for one in (first, name))
    lines = difflib.unified_diff(before, after, f"{first}/{stack}", f"{name}/{stack}", n=_CONTEXT, lineterm="")
    # Line numbers would change with every line above.
    return f"{stack}.diff", "".join(f"{'@@' if line.startswith('@@') else line}\n" for line in lines)


def _without_its_id(example: Synthesized, stack: str) -> str:
    run_id = example.deployment.run.run_id
    ways = "|".join(re.escape(way) for way in (run_id, run_id.replace("-", "_")))
    text = re.sub(rf"(?<![A-Za-z0-9])(?:{ways})(?![A-Za-z0-9])", "RUN", drawn(example.stacks[stack]))
    # Behind a name in a construct the library puts a digest of its path.
    return re.sub(r"(?<=[A-Za-z0-9])_[0-9A-F]{8}(?![A-Za-z0-9])", "", text)


def drawn(stack: dict[str, Any]) -> str:
    """A line for each value. The provider's version is left out: it is the bindings', and checked there."""
    kept = normalised(stack)
    kept.get("terraform", {}).pop("required_providers", None)
    return json.dumps(kept, indent=1) + "\n"


def normalised(value: Any) -> Any:
    """Without the library's notes, digests and long scripts, which have tests of their own."""
    if isinstance(value, dict):
        return {name: normalised(one) for name, one in sorted(value.items()) if name != COMMENT}
    if isinstance(value, list):
        return [normalised(one) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith("#!") and len(value) > _LONG_SCRIPT:
        return "A SCRIPT"
    text = re.sub(r"[0-9a-f]{64}", "SHA256", value)
    return text.splitlines() if "\n" in text else text
