"""`python -m tests.agent.telemetry.gitleaks gitleaks.toml VERSION DATE`: gitleaks' rules as `agent/config/forms.py`.

Taken are the rules that know a token by its form alone. Those that look for a name before it (`[\\w.-]{0,50}?(?:aha)`)
try fifty beginnings at each character of what a trainer prints, and what they find `agent.telemetry.redaction` finds by
the names. What has no end gets one, so that no rule looks at more than so many characters from where it begins.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

MOST = 1000  # characters of a repeat that has no end of its own
_END = re.compile(r"\(\?:\[\\x60'\"\\s;\]\|\\\\\[nr\]\|\$(?:\|\\b)?\)$")
LEFT_OUT = {
    "curl-auth-header": "over several lines",
    "curl-auth-user": "over several lines",
    "facebook-access-token": "digits, and a word that any text may hold",
    "freemius-secret-key": "by its name: found so anyway",
    "jwt": "ours is wider",
    "jwt-base64": "without end",
    "kubernetes-secret-yaml": "over several lines",
    "nuget-config-password": "by its name",
    "private-key": "ours is wider",
    "sourcegraph-access-token": "any commit's hash, in a text with that word",
    "twilio-api-key": "its keyword is in every other line",
}


def convert(rule: dict[str, object]) -> tuple[str, tuple[str, ...], str] | None:
    """Name, keywords in small letters, and pattern; None for a rule that is not taken."""
    name, pattern = str(rule["id"]), str(rule.get("regex", ""))
    if not pattern or r"[\w.-]{0,50}?" in pattern or name in LEFT_OUT:
        return None
    words = rule["keywords"]
    assert isinstance(words, list)
    pattern = _END.sub("", pattern).replace("[[:alnum:]]", "[A-Za-z0-9]").replace(r"\z", r"\Z")
    if "(?i)" in pattern:  # Go's may begin anywhere: where only a part was so, all of it is now
        pattern = "(?i)" + pattern.replace("(?i)", "")
    pattern = re.sub(r"\{(\d+),\}", rf"{{\1,{MOST}}}", pattern)
    pattern = re.sub(r"(?<=[\])\w])\+(?![^\[]*\])", f"{{1,{MOST}}}", pattern)
    pattern = re.sub(r"(?<=[\])\w])\*(?![^\[]*\])", f"{{0,{MOST}}}", pattern)
    return name, tuple(words), pattern


def main() -> None:
    path, version, date = sys.argv[1:]
    found = [taken for rule in tomllib.loads(Path(path).read_text())["rules"] if (taken := convert(rule))]
    out = Path("agent/config/forms.py")
    head = out.read_text().partition("FORMS")[0] if out.exists() else ""
    head = re.sub(r"gitleaks v\S+ \(\S+\)", f"gitleaks {version} ({date})", head)
    lines = [f"    ({name!r}, {words!r}, {_raw(pattern)})," for name, words, pattern in found]
    out.write_text(f"{head}FORMS: tuple[tuple[str, tuple[str, ...], str], ...] = (\n" + "\n".join(lines) + "\n)\n")


def _raw(pattern: str) -> str:
    return f'r"""{pattern}"""' if '"' in pattern else f'r"{pattern}"'


if __name__ == "__main__":
    main()
