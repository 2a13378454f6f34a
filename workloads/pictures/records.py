"""Records as people write them: question and answer, turns, LLaVA's conversations, chat messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workloads.pictures.batch import DataError
from workloads.pictures.text import PLACE

_ASKED = {"human", "user"}
_SAID = {"gpt", "assistant"}
_KEYS = {"images", "image", "question", "answer", "turns", "conversations", "messages"}

SHAPES = (
    '{"images": [...], "question": "...", "answer": "..."}, or with "turns", "conversations" (LLaVA) or "messages" '
    "(chat) in place of question and answer"
)


@dataclass(frozen=True)
class Record:
    """What a record says; `images` are names, or whatever the source has for them."""

    images: tuple[Any, ...]
    turns: tuple[tuple[str, str], ...]
    facts: dict[str, Any]


def lines(name: str, content: bytes) -> Iterator[tuple[str, Any]]:
    """Each record of a .jsonl file, or of a .json file that is one list (LLaVA's), with a key for messages.

    Raises:
        DataError: it is no JSON.
    """
    try:
        if name.endswith(".json"):
            found = json.loads(content)
            if not isinstance(found, list):
                raise DataError(f"{name} is no list of records, but {type(found).__name__}")
            yield from ((f"{name}:{number}", value) for number, value in enumerate(found, 1))
            return
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.strip():
                yield f"{name}:{number}", json.loads(line)
    except ValueError as error:
        raise DataError(f"{name} is no JSON with a record a line: {error}") from None


def parse(key: str, value: Any) -> Record:
    """Raises DataError where a record says nothing that can be learnt."""
    if not isinstance(value, dict):
        raise DataError(f"{key} is no record but {type(value).__name__}: write {SHAPES}")
    images = value.get("images", value.get("image"))
    listed = () if images is None else tuple(images) if isinstance(images, list) else (images,)
    if "question" in value or "answer" in value:
        turns: list[tuple[Any, Any]] = [(value.get("question", ""), value.get("answer"))]
    elif isinstance(value.get("turns"), list):
        turns = [_turn(key, turn) for turn in value["turns"]]
    elif isinstance(value.get("conversations"), list):
        turns = _dialogue(key, [(_get(turn, "from"), _get(turn, "value")) for turn in value["conversations"]])
    elif isinstance(value.get("messages"), list):
        said = [(_get(turn, "role"), _content(key, _get(turn, "content"))) for turn in value["messages"]]
        turns = _dialogue(key, said)
    else:
        raise DataError(f"{key} has keys {', '.join(map(str, value))}: write {SHAPES}")
    if not turns or not all(isinstance(text, str) for turn in turns for text in turn):
        raise DataError(f"{key} has a question or an answer that is no text, or none: write {SHAPES}")
    return Record(listed, tuple(turns), {name: fact for name, fact in value.items() if name not in _KEYS})


def _turn(key: str, turn: Any) -> tuple[Any, Any]:
    if isinstance(turn, list) and len(turn) == 2:
        return turn[0], turn[1]
    if not isinstance(turn, dict):
        raise DataError(f"{key}: a turn is no question and answer but {type(turn).__name__}")
    return turn.get("question", ""), turn.get("answer")


def _dialogue(key: str, said: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """What others say before an answer is its question: a system's words and the user's."""
    turns: list[tuple[Any, Any]] = []
    asked: list[str] = []
    for who, text in said:
        if who in _SAID:
            turns.append(("\n".join(asked), text))
            asked = []
        elif (who in _ASKED or who == "system") and isinstance(text, str):
            asked.append(text)
        else:
            raise DataError(f"{key}: nobody knows who {who!r} is: write human and gpt, or user and assistant")
    if asked:
        raise DataError(f"{key} ends with a question that nobody answers")
    return turns


def _content(key: str, content: Any) -> Any:
    """A message's text; in a list of parts, a picture is its place."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = _get(part, "type")
        if kind not in ("text", "image"):
            raise DataError(f"{key}: a part of a message is of type {kind!r}: write text or image")
        parts.append(PLACE if kind == "image" else str(_get(part, "text")))
    return "".join(parts)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
