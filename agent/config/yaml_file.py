"""A YAML file as plain data and the line of each key. Safe by construction: texts, numbers, lists, mappings."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Where = tuple[str | int, ...]
"""The keys (and places in lists) down to a value."""

LARGEST = 200_000
"""Bytes; a run file is a page or two."""

_FIX = "correct the line; a text with ':' or '#' in it needs quotes"


class Mistake(NamedTuple):
    """Something to change in a run file."""

    line: int
    """Counted from 1; 0 where the file could not be read at all."""
    path: str
    """The value's keys, such as `checkpoint.every`; empty for the file as a whole."""
    reason: str
    fix: str


class YamlFile:
    """What a file says: `data` (None when that is not a mapping), `lines` of its keys, and `mistakes` in its form."""

    def __init__(self, path: Path) -> None:
        self.lines: dict[Where, int] = {}
        self.mistakes: list[Mistake] = []
        self.data: dict[str, Any] | None = None
        try:
            node = Loader(_read_text(path)).get_single_node()
            data = self._read(node, ()) if node is not None else None
        except _Unreadable as error:
            self.mistakes.append(Mistake(0, "", *error.args))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.mistakes.append(Mistake(line, "", f"not YAML: {error.problem}", error.note or _FIX))
        except yaml.reader.ReaderError as error:
            self.mistakes.append(Mistake(1, "", f"not YAML: {error.reason}", "save the file as plain text"))
        except RecursionError:
            self.mistakes.append(Mistake(1, "", "it is nested too deeply", "write a run file's keys and values"))
        else:
            if isinstance(data, dict):
                self.data = data
            else:
                fix = "start with `run_id: NAME`; `spot fields` lists the keys"
                self.mistakes.append(Mistake(1, "", "a run file is a mapping of keys to values", fix))

    def _read(self, node: yaml.Node, where: Where) -> Any:
        self.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(child, (*where, place)) for place, child in enumerate(node.value)]
        return self._read_scalar(node, where)

    def _read_mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            inside = (*where, key.value) if isinstance(key, yaml.ScalarNode) else where
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, where, "a key must be plain text", "write `key: value`")
            elif key.value in values:
                self._refuse(key, inside, f"given twice, first on line {self.lines[inside]}", "leave one of them out")
            else:
                self.lines[inside] = key.start_mark.line + 1
                values[key.value] = self._read(value, inside)
        return values

    def _read_scalar(self, node: yaml.Node, where: Where) -> Any:
        text = str(node.value)
        try:
            match node.tag.rpartition(":")[2]:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text)
                case "float":
                    return float(text)
        except ValueError as error:
            self._refuse(node, where, f"not a number: {error}", "write a number")
            return text
        self._refuse(node, where, f"tag {node.tag} is not used in run files", "leave out the tag")
        return text

    def _refuse(self, node: yaml.Node, where: Where, reason: str, fix: str) -> None:
        self.mistakes.append(Mistake(node.start_mark.line + 1, dotted(where), reason, fix))


def dotted(where: Where) -> str:
    """The keys as people write them: `stages[0].machine.notice`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in where).removeprefix(".")


class _Unreadable(Exception):
    """Reason and fix."""


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise _Unreadable("it is too large for a run file", "give the YAML file of a run")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = "give the path of a run file, such as workloads/llm/run.yaml"
        raise _Unreadable(f"it can't be read: {reason}", fix) from None
    except UnicodeDecodeError:
        raise _Unreadable("it is not UTF-8 text", "save it as UTF-8") from None


class Loader(yaml.SafeLoader):
    """YAML 1.2's plain values (3e-4 is a number; `on` and 1:30 are texts), and no anchors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, the class attribute that PyYAML looks up

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None):
            reason = "anchors and aliases are not used in run files"
            raise yaml.composer.ComposerError(None, None, reason, event.start_mark, "write the values out")
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
