"""Many small questions in one request: the JSON API's batches, multipart/mixed of whole HTTP messages."""

from __future__ import annotations

import http.client
import random
import time
import uuid
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser

from agent.store.base import Unavailable
from agent.store.credentials import RETRIED
from agent.store.reply import Reply
from agent.store.transport import Transport

LIMIT = 100
"""Questions that one batch may hold."""

Questions = Mapping[str, tuple[str, str]]
"""Method and target, by a key of the asker's; none has a body."""

_PAUSE = 0.1  # seconds before what was answered "try again" is asked again; doubles
_LONGEST_PAUSE = 2.0


def ask(
    transport: Transport, questions: Mapping[str, tuple[str, str]], deadline: float, doing: str
) -> dict[str, Reply]:
    """Ask `questions` and return their answers.

    What the server can't answer now is asked again until the deadline; then its last answer is returned.
    """
    answers: dict[str, Reply] = {}
    left = dict(questions)
    pause = _PAUSE
    while True:
        try:
            answers |= _once(transport, left, deadline, doing)
        except Unavailable:
            if len(answers) < len(questions):
                raise
            return answers
        left = {key: questions[key] for key in left if answers[key].status in RETRIED}
        wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        if not left or time.monotonic() + wait >= deadline:
            return answers
        time.sleep(wait)
        pause = min(_LONGEST_PAUSE, 2 * pause)


def _once(
    transport: Transport, questions: Mapping[str, tuple[str, str]], deadline: float, doing: str
) -> dict[str, Reply]:
    boundary = uuid.uuid4().hex
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n"
        f"{method} {target} HTTP/1.1\r\n\r\n\r\n"
        for number, (method, target) in enumerate(questions.values())
    ]
    reply = transport.request(
        "POST",
        "/batch/storage/v1",
        deadline=deadline,
        doing=doing,
        body=("".join(parts).encode(), f"--{boundary}--\r\n".encode()),
        headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
    )
    if reply.status != 200:  # the whole of it was refused: so was each of its questions
        return dict.fromkeys(questions, reply)
    found = _parse(reply)
    if len(found) != len(questions):
        raise Unavailable(f"{doing}: {len(found)} answers came to {len(questions)} questions")
    return {key: found[number] for number, key in enumerate(questions)}


def _parse(reply: Reply) -> dict[int, Reply]:
    """The answers by the number of their question; those that make no sense are left out."""
    head = f"Content-Type: {reply.headers.get('Content-Type', '')}\r\n\r\n".encode()
    whole = BytesParser().parsebytes(head + bytes(reply.body))
    parts = whole.get_payload() if whole.is_multipart() else []
    found = {}
    for part in parts:
        if isinstance(part, Message):
            number = part.get("Content-ID", "").strip("<>").removeprefix("response-")
            status, _, rest = str(part.get_payload()).lstrip().partition("\n")
            words = status.split()
            if number.isdigit() and len(words) > 1 and words[1].isdigit():
                headers, _, content = rest.replace("\r\n", "\n").partition("\n\n")
                found[int(number)] = Reply(int(words[1]), _headers(headers), memoryview(content.strip().encode()))
    return found


def _headers(text: str) -> http.client.HTTPMessage:
    made = http.client.HTTPMessage()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        made[name.strip()] = value.strip()
    return made
