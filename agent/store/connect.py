"""Connecting within a deadline: looking the name up and trying every address are one wait, not one each.

The resolver can't be interrupted, and gives each name server its own time: it is asked in a thread. An answer that is
minutes old serves while it does not speak. Of several addresses each gets its share of the time that is left.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

_FRESH_S = 60.0
_LEAST_S = 0.05

_Found = list[tuple[Any, Any, int, str, Any]]
_known: dict[tuple[str, int], tuple[float, _Found]] = {}


def connect(address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None) -> socket.socket:
    """As `socket.create_connection`; `timeout` (seconds) is for all of it. Raises OSError, and so TimeoutError."""
    end = time.monotonic() + timeout
    addresses = resolve(*address, timeout=timeout)
    problem: OSError = OSError(f"{address[0]} has no address")
    for number, (family, kind, protocol, _, place) in enumerate(addresses):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"none of {number} of {len(addresses)} addresses of {address[0]} answered in time")
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(_LEAST_S, left / (len(addresses) - number)))
            if source:
                connection.bind(source)
            connection.connect(place)
            connection.settimeout(max(_LEAST_S, end - time.monotonic()))
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem


def resolve(host: str, port: int, *, timeout: float) -> _Found:
    """The addresses of `host`. Raises OSError where it has none, TimeoutError where nobody says within `timeout` s."""
    at, found = _known.get((host, port), (float("-inf"), []))
    if time.monotonic() - at < _FRESH_S:
        return found
    answer: list[_Found | OSError] = []
    told = threading.Event()

    def ask() -> None:
        try:
            there = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            _known[host, port] = (time.monotonic(), there)
            answer.append(there)
        except OSError as error:
            answer.append(error)
        finally:
            told.set()

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    told.wait(timeout if not found else timeout / 2)
    if answer and not isinstance(answer[0], OSError):
        return answer[0]
    if found:
        return found
    if answer and isinstance(answer[0], OSError):
        raise answer[0]
    raise TimeoutError(f"nobody said within {timeout:.1f} s where {host} is: is there a name server?")
