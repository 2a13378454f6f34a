"""Nothing secret and nothing unprintable reaches the journal.

What is hidden, in every field of every record, exceptions and other libraries' messages included:
- text under a key that names a secret (`token`, `authorization`, `password`, `secret`, `credentials`, `api_key`,
  `private_key`, `cookie`, `signature`, with any prefix). Numbers stay: `tokens=4096` is no secret, nor is a count;
- inside any text: bearer tokens and authorization headers; Google, Hugging Face and GitHub tokens and JWTs by their
  form; private key blocks; `NAME_TOKEN=value`, `"client_secret": "value"`, `X-Goog-Signature=value` and the like;
  passwords in URLs; and what gitleaks knows by its form (`agent.config.forms`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from structlog.typing import EventDict, WrappedLogger

from agent.config.forms import FORMS

HIDDEN = "[redacted]"

_NAMES = (
    r"token|password|passwd|passphrase|secret|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|"
    r"private[_-]?key|cookie|signature|(?-i:_PAT)"
)
_SECRET_KEY = re.compile(rf"(?i)(authorization|{_NAMES})$")
# What training logs call a token is none: `eos_token=</s>`, `loss per token: 2.3`.
_NO_SECRET = "".join(
    f"(?<!{word})" for word in ("bos_", "eos_", "pad_", "unk_", "sep_", "cls_", "mask_", "image_", "per ")
)
_NUMBER = r"(?!['\"\\]*[-+]?\d[\d.,_]{0,15}(?:e[-+]?\d+)?(?:[\s,;)}\]'\"\\]|$))"
# Each begins at something that is rare, and none looks at a character twice: linear in whatever a trainer prints.
_SECRET_TEXT = [
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"), HIDDEN),
    (
        re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*(?:b(?=['\"]))?['\"]*)(?:(?:basic|bearer)\s+)?[^\s'\",;}]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), rf"\1{HIDDEN}"),
    (  # by their form: Google, Hugging Face, GitHub, AWS, OpenAI and Anthropic, Slack, GitLab, npm, PyPI; JWTs
        re.compile(
            r"(?<![\w-])(?:ya29\.[\w.-]+|1//[\w-]{20,}|AIza[\w-]{30,}|GOOG1[A-Z0-9]{20,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|"
            r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])|"
            r"sk-(?=[\w-]*\d)[\w-]{20,}|xox[abeprs]-[\w-]{10,}|glpat-[\w-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,})"
        ),
        HIDDEN,
    ),
    (
        re.compile(
            rf"(?i){_NO_SECRET}((?:{_NAMES}|x-goog-credential)\\?['\"]?\s*[:=]\s*{_NUMBER}\\?(?:b(?=['\"]))?['\"]*)"
            r"[^\s'\"\\&,;}]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (  # `--token VALUE`, as command lines are told
        re.compile(
            rf"(?i){_NO_SECRET}(?<=[-_])((?:{_NAMES})['\"]?,?\s+['\"]?)(?!-)(?=\S*[\d/+=_-]){_NUMBER}[^\s'\",;]{{6,}}"
        ),
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
    small = text.lower()
    for _, keywords, form in FORMS:
        for keyword in keywords:
            if keyword in small:
                text = _compiled(form).sub(HIDDEN, text)
                break
    return text


@functools.cache
def _compiled(form: str) -> re.Pattern[str]:
    """With what follows at once: a token may be longer than its form asks. When first needed, for all take 60 ms."""
    flags = re.IGNORECASE if form.startswith("(?i)") else 0
    return re.compile(rf"(?:{form.removeprefix('(?i)')})[\w+/=-]*", flags)
