"""Reads a run file. Every mistake in it is reported at once: file, line, reason, fix."""

import difflib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.describe import field_at, keys_at
from agent.config.refusal import Refusal
from agent.config.run import RunConfig
from agent.config.yaml_file import Mistake, Where, YamlFile, dotted


class RunFileError(Exception):
    """A run file that can't be used; its text names each mistake with file, line, reason and fix."""

    def __init__(self, file: Path, mistakes: list[Mistake]) -> None:
        self.file = file
        self.mistakes = sorted(set(mistakes))
        super().__init__("\n".join(self._format(mistake) for mistake in self.mistakes))

    def _format(self, mistake: Mistake) -> str:
        place = f"{self.file}:{mistake.line}" if mistake.line else str(self.file)
        value = f"{mistake.path}: " if mistake.path else ""
        return f"{place}: {value}{mistake.reason}\n    fix: {mistake.fix}"


def load_run(path: Path, *, also: Callable[[RunConfig], Iterator[Refusal]] | None = None) -> RunConfig:
    """The run that a YAML file describes. Folders in it that are relative start at the file's own folder.

    `also`: what else is refused of a run that could be used, by those who know more of what it is used for.

    Raises:
        RunFileError: the file can't be read or used; it names all mistakes found. Whether sections fit together is
            looked at once each of them is valid.
    """
    path = Path(path)
    file = YamlFile(path)
    mistakes, run = list(file.mistakes), None
    if file.data is not None:
        try:
            run = RunConfig.model_validate(file.data, context={"base": path.parent.absolute()})
        except ValidationError as error:
            known = {mistake.path for mistake in mistakes}
            for found in error.errors(include_url=False):
                follows = found["type"] == "default_factory_not_called" or dotted(found["loc"]) in known
                if not follows:
                    mistakes.append(_explain(dict(found), file.lines))
        else:
            for where, reason, fix in also(run) if also else ():
                mistakes.append(Mistake(_line_of(where, file.lines), dotted(where), reason, fix))
    if run is None or mistakes:
        raise RunFileError(path, mistakes)
    return run


def _explain(error: dict[str, Any], lines: dict[Where, int]) -> Mistake:
    where: Where = error["loc"]
    reason, fix = _reason_and_fix(error, where)
    return Mistake(_line_of(where, lines), dotted(where), reason, fix)


def _line_of(where: Where, lines: dict[Where, int]) -> int:
    """Where the value is, or, where it is a default, the section around it."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)


def _reason_and_fix(error: dict[str, Any], where: Where) -> tuple[str, str]:
    context: dict[str, Any] = error.get("ctx", {})
    field = field_at(where)
    about = " ".join((field.description or "").split()) if field is not None else ""
    key, value = (where[-1] if where else ""), error["input"]
    match error["type"]:
        case "run_file":
            return context["reason"], context["fix"]
        case "missing" if isinstance(key, int):
            return "the list is too short", about
        case "missing":
            return "it is missing", f"add `{key}: ...`. {about}"
        case "extra_forbidden":
            return "unknown key", _did_you_mean(str(key), where)
        case "literal_error":
            return f"{value!r} is not known here", f"write {context['expected']}"
        case "model_type" | "dict_type":
            keys = ", ".join(keys_at(where))
            return f"{value!r} is not a mapping of keys to values", f"the keys are {keys}" if keys else about
        case "greater_than_equal":
            return f"{value!r} is too small", f"write {context['ge']} or more. {about}"
        case "greater_than":
            return f"{value!r} is too small", f"write more than {context['gt']}. {about}"
        case "less_than_equal":
            return f"{value!r} is too large", f"write {context['le']} or less. {about}"
        case "less_than":
            return f"{value!r} is too large", f"write less than {context['lt']}. {about}"
        case "string_pattern_mismatch":
            return f"{value!r} is not written as it must be", about
        case "string_type" if isinstance(value, int | float):
            return f"{value!r} is not a text", f'put it in quotes: "{str(value).lower()}"'
        case "int_type" | "float_type" as kind:
            number = "a whole number" if kind == "int_type" else "a number"
            is_quoted = isinstance(value, str) and re.fullmatch(r"[0-9.]+", value)
            return f"{value!r} is not {number}", f"write {value} without quotes" if is_quoted else about
        case "tuple_type":
            return f"{value!r} is not a list", f"write [{', '.join(_words(value))}]. {about}"
    return f"{error['msg']}, but it is {value!r}", about


def _words(value: Any) -> list[str]:
    """A command line as the list that a run file wants; anything else as the one entry of it."""
    try:
        words = shlex.split(value) if isinstance(value, str) else [str(value)]
    except ValueError:  # a quote without an end
        words = str(value).split()
    return [word if re.fullmatch(r"[\w./=@%+-]+", word) else f'"{word}"' for word in words]


def _did_you_mean(key: str, where: Where) -> str:
    known = keys_at(where[:-1])
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
