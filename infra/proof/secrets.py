"""Nothing secret in what is synthesized: it goes into state, plans and metadata, which many can read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from infra.proof.mistake import Mistake
from infra.proof.schema import COMMENT

_TYPES = {"google_service_account_key": "a key would lie in the state"}
_FIELDS = frozenset({"secret_data", "private_key", "password", "access_token", "credentials", "raw_key", "auth_token"})
_LOOKS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|AIza[0-9A-Za-z_-]{30}|ya29\.[0-9A-Za-z_-]{20}|gh[pousr]_[0-9A-Za-z]{30}"
    r"|hf_[0-9A-Za-z]{30}|xox[abps]-[0-9A-Za-z-]{10}|(?:WANDB_API_KEY|HF_TOKEN)['\"]?\s*[=:]\s*['\"]?[0-9A-Za-z_]{20}"
)


def mistakes(stack: str, synthesized: dict[str, Any]) -> Iterator[Mistake]:
    for of_type, why in _TYPES.items():
        for name in synthesized.get("resource", {}).get(of_type, {}):
            yield Mistake(stack=stack, path=f"{of_type}.{name}", reason=why, fix="do without")
    yield from _walk(stack, "", synthesized)


def _walk(stack: str, path: str, value: Any) -> Iterator[Mistake]:
    if isinstance(value, str) and _LOOKS.search(value):
        reason = "holds what looks like a secret"
        yield Mistake(stack=stack, path=path, reason=reason, fix="keep it in Secret Manager, and name it here")
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _walk(stack, f"{path}[{place}]", one)
    elif isinstance(value, dict):
        for name, one in value.items():
            where = f"{path}.{name}".lstrip(".").removeprefix("resource.")
            if name in _FIELDS and isinstance(one, str) and one:
                reason = "a secret would lie in state and plan"
                yield Mistake(stack=stack, path=where, reason=reason, fix="add its value by hand, outside of Terraform")
            elif name != COMMENT:
                yield from _walk(stack, where, one)
