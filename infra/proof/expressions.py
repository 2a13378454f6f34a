"""Terraform's templates inside JSON text: which `${...}` are there, and what they refer to.

    >>> scan("gs://${google_storage_bucket.b.name}/$${HOME}").references
    [Reference(steps=('google_storage_bucket', 'b', 'name'), text='google_storage_bucket.b.name')]

`$${` and `%%{` are plain text: a shell's `${` has to be written so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"(?P<string>\")|(?P<name>[A-Za-z_][A-Za-z0-9_-]*)|(?P<number>\d[\d.]*)|(?P<other>=>|==|!=|<=|>=|.)", re.DOTALL
)
_START = re.compile(r"\$\$\{|%%\{|\$\{|%\{")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\.(?:\d+|\*)|\[(?:\d+|\*|\"[^\"$]*\")\]")
_WORDS = frozenset({"true", "false", "null", "for", "in", "if"})


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`a.b[0].c`: the steps that have a name; an index or a splat is passed over."""

    steps: tuple[str, ...]
    text: str


@dataclass(kw_only=True)
class Scanned:
    references: list[Reference] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What can't be a template of Terraform, such as a shell's `${HOME:-/}`."""


def scan(text: str) -> Scanned:
    """Everything that Terraform would evaluate in `text`."""
    found = Scanned()
    at = 0
    while start := _START.search(text, at):
        at = start.end()
        if start[0] == "%{":
            found.troubles.append(f"begins a directive: {_near(text, start.start())}")
        elif start[0] == "${":
            at = _Expression(text, at, found).read()
    return found


def plain(text: str, *, expressions: str = "x") -> str:
    """`text` as a VM gets it, with `expressions` where Terraform would put a value."""
    out: list[str] = []
    at = 0
    while start := _START.search(text, at):
        out.append(text[at : start.start()])
        at = start.end()
        if start[0] == "${":
            out.append(expressions)
            at = _Expression(text, at, Scanned()).read()
        else:
            out.append(start[0][-2:])
    return "".join((*out, text[at:]))


def _near(text: str, at: int) -> str:
    return repr(text[at : at + 30])


class _Expression:
    """Reads one expression from behind its `${` to behind its `}`."""

    def __init__(self, text: str, at: int, found: Scanned, bound: frozenset[str] = frozenset()) -> None:
        self._text, self._at, self._start, self._found = text, at, at - 2, found
        self._bound = bound
        """Names that a `for` around here gives a value to."""

    def read(self) -> int:
        depth = 0
        loop = False
        while token := _TOKEN.match(self._text, self._at):
            word = token[0]
            self._at = token.end()
            if token["string"]:
                if not self._string():
                    break
            elif token["name"]:
                if word == "for":
                    loop = True
                elif word == "in":
                    loop = False
                elif loop:
                    self._bound |= {word}
                elif word not in _WORDS:
                    self._reference(word, token.start())
            elif word == "}" and depth == 0:
                return self._at
            elif word in "{[(":
                depth += 1
            elif word in "}])":
                depth -= 1
            elif word in ("'", "`", ";", "#", "$", "\\", "@", "~"):
                self._found.troubles.append(f"is no expression: {_near(self._text, self._start)}")
                return self._at
        self._found.troubles.append(f"has no end: {_near(self._text, self._start)}")
        return len(self._text)

    def _string(self) -> bool:
        """A quoted text inside an expression, which may hold templates itself."""
        begin = self._at
        while self._at < len(self._text):
            if self._text[self._at] == "\\":
                self._at += 2
            elif self._text.startswith("$${", self._at):
                self._at += 3
            elif self._text.startswith("${", self._at):
                self._at = _Expression(self._text, self._at + 2, self._found, self._bound).read()
            elif self._text[self._at] == '"':
                self._at += 1
                return True
            else:
                self._at += 1
        self._at = begin
        return False

    def _reference(self, first: str, start: int) -> None:
        steps = [first]
        while step := _STEP.match(self._text, self._at):
            if step[1]:
                steps.append(step[1])
            self._at = step.end()
        after = self._text[self._at :].lstrip()
        called = after.startswith("(")
        key = after.startswith("=") and not after.startswith(("==", "=>"))
        if not called and not key and first not in self._bound:
            self._found.references.append(Reference(steps=tuple(steps), text=self._text[start : self._at]))
