"""Scripts in a VM's metadata, as the VM will get them: the shell must be able to read what Terraform leaves of them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from infra.proof.expressions import plain
from infra.proof.mistake import Mistake

Json = dict[str, Any]

_TIMEOUT_S = 10.0
_BASH = shutil.which("bash")


def mistakes(stack: str, synthesized: Json) -> Iterator[Mistake]:
    """Only scripts for bash are read, by bash; where the machine has none, only the escapes are looked at."""
    for path, text in _scripts(synthesized):
        script = plain(text)
        if "$${" in script:
            near = script[script.index("$${") :][:30]
            reason = f"is escaped twice: the VM would get {near!r}"
            yield Mistake(stack=stack, path=path, reason=reason, fix="escape it once")
        first = script.partition("\n")[0]
        if not first.startswith("#!"):
            yield Mistake(stack=stack, path=path, reason="has no #! line", fix="write #!/usr/bin/env bash")
        elif first.endswith("bash") and _BASH and (trouble := _read_by_bash(script)):
            yield Mistake(stack=stack, path=path, reason=f"bash can't read it: {trouble}", fix="see the script")


def _scripts(synthesized: Json) -> Iterator[tuple[str, str]]:
    for of_type, named in synthesized.get("resource", {}).items():
        for name, body in named.items():
            path = f"{of_type}.{name}"
            if not isinstance(body, dict):
                continue
            if isinstance(script := body.get("metadata_startup_script"), str):
                yield f"{path}.metadata_startup_script", script
            metadata = body.get("metadata")
            for key, value in metadata.items() if isinstance(metadata, dict) else ():
                if key in ("startup-script", "shutdown-script", "spot-boot-failed") and isinstance(value, str):
                    yield f"{path}.metadata[{key!r}]", value


@functools.cache
def _read_by_bash(script: str) -> str:
    """What bash says, or nothing. It reads the script, and runs none of it."""
    assert _BASH
    done = subprocess.run([_BASH, "-n"], input=script, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return done.stderr.strip().partition("\n")[0] if done.returncode else ""
