"""All stacks of one app: read from where they were synthesized, or synthesized for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.proof import applies, bindings, names, order, stack
from infra.proof.mistake import Mistake
from infra.proof.schema import Schema

Json = dict[str, Any]

_SYNTH_TIMEOUT_S = 120.0
_PARTS = ("resource", "data")


class NotSynthesized(Exception):
    """There is nothing to check; the text says why."""


@dataclass(frozen=True, kw_only=True)
class App:
    """What an app has written."""

    stacks: Mapping[str, Json]
    """Each stack's cdk.tf.json, by name."""
    before: Mapping[str, Collection[str]]
    """The stacks that each depends on itself, as the manifest has them."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    provider: str
    """Version of Google's provider that the stacks were held against."""
    blocks: dict[str, int]
    """Resources and data sources by stack."""
    mistakes: list[Mistake]


def prove(app: App, *, cache: Path | None = None) -> Proof:
    """Raises bindings.NoBindings."""
    stacks = app.stacks
    schema = Schema(found=bindings.load(cache))
    found = [mistake for name, one in stacks.items() for mistake in stack.mistakes(name, one, schema)]
    found += names.mistakes(stacks)
    found += order.mistakes(stacks, app.before)
    found += applies.mistakes(stacks)
    blocks = {
        name: sum(len(named) for part in _PARTS for named in one.get(part, {}).values()) for name, one in stacks.items()
    }
    return Proof(provider=schema.version, blocks=blocks, mistakes=found)


def read(out: Path) -> App:
    """The stacks below an app's folder. Raises NotSynthesized."""
    files = sorted(out.glob("stacks/*/cdk.tf.json"))
    if not files:
        raise NotSynthesized(f"{out} has no stacks/NAME/cdk.tf.json\n    fix: make synth, or name a run file")
    manifest = out / "manifest.json"
    if not manifest.is_file():
        raise NotSynthesized(f"{out} has no manifest.json, which says which stack comes first\n    fix: make synth")
    written = json.loads(manifest.read_text())["stacks"]
    return App(
        stacks={path.parent.name: _parse(path) for path in files},
        before={name: entry.get("dependencies", []) for name, entry in written.items()},
    )


def synthesize(run_file: Path) -> App:
    """The stacks of a run file, from `python -m infra.main`, as cdktf runs it. Raises NotSynthesized."""
    with tempfile.TemporaryDirectory(prefix="spot-proof-") as out:
        env = {**os.environ, "SPOT_RUN": str(run_file), "CDKTF_OUTDIR": out}
        command = [sys.executable, "-P", "-m", "infra.main"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_SYNTH_TIMEOUT_S, check=False)
        if done.returncode:
            raise NotSynthesized(done.stderr.strip() or f"{' '.join(command)} ended with {done.returncode}")
        return read(Path(out))


def _parse(path: Path) -> Json:
    """Refuses a name that is there twice: JSON keeps the last of them, silently."""

    def once(pairs: list[tuple[str, Any]]) -> Json:
        found: Json = {}
        for name, value in pairs:
            if name in found:
                raise NotSynthesized(f"{path} has {name!r} twice in one object")
            found[name] = value
        return found

    parsed: Json = json.loads(path.read_text(), object_pairs_hook=once)
    return parsed
