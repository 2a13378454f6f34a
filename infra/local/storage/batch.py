"""Batch requests: many metadata operations in one multipart/mixed body."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser, Parser
from http import HTTPStatus

from infra.local.storage.errors import Refused
from infra.local.storage.memory import Data

BATCH_LIMIT = 100


@dataclass(frozen=True)
class Part:
    """One operation of a batch."""

    content_id: str
    method: str
    url: str
    headers: Message
    content: bytes


def parse_batch(content_type: str, body: bytes) -> list[Part]:
    """The operations of a batch body; 400 if it is malformed or too long."""
    whole = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body.lstrip())
    if not whole.is_multipart():
        raise Refused("A batch needs Content-Type: multipart/mixed; boundary=... and a body of such parts.")
    parts = [_parse_part(part) for part in whole.get_payload() if isinstance(part, Message)]
    if len(parts) > BATCH_LIMIT:
        raise Refused(f"The batch has {len(parts)} operations, more than the {BATCH_LIMIT} allowed.")
    return parts


def _parse_part(part: Message) -> Part:
    text = str(part.get_payload()).lstrip()
    line, _, rest = text.partition("\n")
    words = line.split()
    if len(words) != 3:
        raise Refused(f"Malformed request line in a batch: {line.strip()!r}.")
    headers = Parser().parsestr(rest)
    content = str(headers.get_payload()).encode()
    return Part(part.get("Content-ID", ""), words[0], words[1], headers, content)


def format_batch(answers: list[tuple[Part, int, dict[str, str], bytes]]) -> tuple[str, Data]:
    """Content type and body of a batch's answer; each item is a part and its status, headers and content."""
    boundary = f"batch_{secrets.token_hex(12)}"
    lines: list[bytes] = []
    for part, status, headers, content in answers:
        inner = part.content_id.strip("<>")
        head = [
            f"--{boundary}",
            "Content-Type: application/http",
            f"Content-ID: <response-{inner}>",
            "",
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{key}: {value}" for key, value in headers.items()),
            f"Content-Length: {len(content)}",
            "",
            "",
        ]
        lines.append("\r\n".join(head).encode() + content + b"\r\n")
    return f"multipart/mixed; boundary={boundary}", Data.of(b"".join(lines) + f"--{boundary}--\r\n".encode())
