"""Nothing secret and nothing unprintable reaches the journal.

What is hidden, in every field of every record, exceptions and other libraries' messages included:
- text under a key that names a secret (`token`, `authorization`, `password`, `secret`, `credentials`, `api_key`,
  `private_key`, `cookie`, `signature`, with any prefix). Numbers stay: `tokens=4096` is no secret, nor is a count;
- inside any text: bearer tokens and authorization headers; Google, Hugging Face and GitHub tokens and JWTs by their
  form; private key blocks; `NAME_TOKEN=value`, `"client_secret": "value"`, `X-Goog-Signature=value` and the like;
  passwords in URLs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from structlog.typing import EventDict, WrappedLogger

HIDDEN = "[redacted]"

_NAMES = r"token|password|passwd|secret|credentials?|api[_-]?key|private[_-]?key|cookie|signature"
_SECRET_KEY = re.compile(rf"(?i)(authorization|{_NAMES})$")
_SECRET_TEXT = [
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"), HIDDEN),
    (
        re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*(?:b(?=['\"]))?['\"]*)(?:(?:basic|bearer)\s+)?[^\s'\",;}]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\bya29\.[\w.-]+|\b1//[\w-]{20,}|\bAIza[\w-]{30,}|\bGOOG1[A-Z0-9]{20,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}"), HIDDEN),
    (
        re.compile(rf"(?i)((?:{_NAMES}|x-goog-credential)\\?['\"]?\s*[:=]\s*\\?(?:b(?=['\"]))?['\"]*)[^\s'\"\\&,;}}]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), f"://{HIDDEN}@"),
]


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor. Goes last before the renderer; leaves only what JSON can hold."""
    return {str(key): clean(value, str(key)) for key, value in event.items()}


def clean(value: object, key: str = "") -> Any:
    """`value` as plain text, numbers, lists and dicts with string keys, without its secrets. Never raises."""
    try:
        return _clean(value, key)
    except Exception as error:  # noqa: BLE001 - a value's own code may raise anything; a log line must not
        return f"<{type(value).__name__}: can't be shown, {type(error).__name__}>"


def _clean(value: object, key: str) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)  # JSON has no nan
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {hide(str(k)): _clean(v, str(k)) for k, v in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return hide(bytes(value).decode(errors="backslashreplace"))
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [_clean(item, "") for item in value]
    return hide(str(value))


def hide(text: str) -> str:
    """`text` without what looks like a secret in it."""
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text
