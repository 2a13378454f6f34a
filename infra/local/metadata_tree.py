"""What a metadata server knows: a tree of values, each path with its own ETag."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

Value = str | int | list[str]
Computed = Callable[[], Mapping[str, Any]]
"""A leaf made anew for each request (the token). Listings name it, recursive answers leave it out."""

# Below these the next key is the user's own and keeps its spelling; all others become camelCase in JSON.
_VERBATIM = ("attributes", "guest-attributes", "service-accounts")
_ALWAYS_THERE = ("instance/attributes", "instance/guest-attributes", "project/attributes")


class MetadataTree:
    """Paths are relative to `/computeMetadata/v1/`, without slashes at the ends. Not thread-safe by itself.

    An ETag names (server, path, last change at or below the path), not the content: FALSE -> TRUE -> FALSE between
    two polls is still a change. A new tree never repeats an older one's ETags.
    """

    def __init__(self) -> None:
        self._leaves: dict[str, Value | Computed] = {}
        self._changes: dict[str, int] = {}  # path -> change number; removed paths stay in it
        self._count = 0
        self._seed = secrets.token_bytes(8)

    def set(self, path: str, value: Value | Computed) -> bool:
        """True if it changed anything. `ValueError` for a path that can't hold a value."""
        if not path or path != path.strip("/") or self.is_directory(path):
            raise ValueError(f"{path!r} can't hold a value: give a leaf such as 'instance/preempted'")
        if path in self._leaves and self._leaves[path] == value:
            return False
        self._leaves[path] = value
        self._note(path)
        return True

    def delete(self, path: str) -> bool:
        """True if the value was there."""
        if self._leaves.pop(path, None) is None:
            return False
        self._note(path)
        return True

    def get(self, path: str) -> Value | Computed | None:
        return self._leaves.get(path)

    def is_directory(self, path: str) -> bool:
        return path == "" or path in _ALWAYS_THERE or any(leaf.startswith(path + "/") for leaf in self._leaves)

    def version(self, path: str) -> int:
        """Number of the last change at or below `path`, 0 if there was none."""
        inside = path + "/" if path else ""
        return max((n for p, n in self._changes.items() if p == path or p.startswith(inside)), default=0)

    def etag(self, path: str) -> str:
        """16 hexadecimal digits, as the real server's."""
        return blake2b(f"{path}\n{self.version(path)}".encode(), key=self._seed, digest_size=8).hexdigest()

    def listing(self, path: str) -> list[str]:
        """Names directly inside a directory, directories with a slash at the end."""
        names = set()
        start = len(path) + 1 if path else 0
        for known in (*self._leaves, *(f"{always}/" for always in _ALWAYS_THERE)):
            if known[:start].rstrip("/") == path and len(known) > start:
                name, slash, _ = known[start:].partition("/")
                names.add(name + slash)
        return sorted(names)

    def nested(self, path: str) -> dict[str, Any]:
        """The directory as the real server's recursive JSON: nested objects with camelCase keys."""
        keep = path.rpartition("/")[2] in _VERBATIM or "guest-attributes" in path.split("/")
        result: dict[str, Any] = {}
        for name in self.listing(path):
            inner = f"{path}/{name.rstrip('/')}".lstrip("/")
            key = name.rstrip("/") if keep else _camel(name.rstrip("/"))
            if name.endswith("/"):
                result[key] = self.nested(inner)
            elif not callable(value := self._leaves[inner]):
                result[key] = value
        return result

    def flat(self, path: str) -> list[tuple[str, Value]]:
        """The directory's values for `recursive=true&alt=text`, paths relative to it."""
        start = len(path) + 1 if path else 0
        inside = path + "/" if path else ""
        return [
            (p[start:], value)
            for p, value in sorted(self._leaves.items())
            if p.startswith(inside) and not callable(value)
        ]

    def _note(self, path: str) -> None:
        self._count += 1
        self._changes[path] = self._count


def render_leaf(value: Value | Computed, alt: str | None) -> tuple[str, bytes]:
    """(content type, body). Text unless asked for JSON; what is computed is JSON always."""
    if callable(value):
        return "application/json", json.dumps(dict(value())).encode()
    if alt == "json":
        return "application/json", json.dumps(value).encode()
    return "application/text", _text(value).encode()


def render_directory(tree: MetadataTree, path: str, *, recursive: bool, alt: str | None) -> tuple[str, bytes]:
    """(content type, body). A recursive answer is JSON unless text is asked for, a listing is text."""
    if recursive and alt != "text":
        return "application/json", json.dumps(tree.nested(path)).encode()
    if recursive:
        lines = [f"{name} {_text(value)}" for name, value in tree.flat(path)]
    elif alt == "json":
        return "application/json", json.dumps(tree.listing(path)).encode()
    else:
        lines = tree.listing(path)
    return "application/text", "".join(f"{line}\n" for line in lines).encode()


def _text(value: Value) -> str:
    return "".join(f"{line}\n" for line in value) if isinstance(value, list) else str(value)


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(word.capitalize() for word in others)
