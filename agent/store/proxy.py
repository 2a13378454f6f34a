"""The proxy that the environment names for a server: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

In upper or lower case, as other programs read them. This machine itself is never asked for through a proxy.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from agent.store.base import StoreError


@dataclass(frozen=True)
class Proxy:
    """Where it is, and what it wants to be told: a password may be in it."""

    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def find_proxy(endpoint: str) -> Proxy | None:
    """The proxy on the way to `endpoint`, None where none is named. Raises StoreError for one that can't be used."""
    parts = urlsplit(endpoint)
    named = urllib.request.getproxies_environment()
    key = parts.scheme if parts.scheme in named else "all"
    host = parts.hostname or ""
    bypassed = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if key not in named or _is_here(host) or bypassed(parts.netloc, named):
        return None
    variable = f"{key.upper()}_PROXY"
    url = named[key] if "://" in named[key] else f"http://{named[key]}"
    try:
        found = urlsplit(url)
        port = found.port or 80
    except ValueError:
        raise StoreError(f"{variable} is no address: write http://HOST:PORT, or put {host} into NO_PROXY") from None
    if found.scheme != "http" or not found.hostname:
        raise StoreError(
            f"{variable} names a {found.scheme}:// proxy, and only http://HOST:PORT is supported (what goes to "
            f"{host} is encrypted all the same). Name such a one, or put {host} into NO_PROXY"
        )
    headers = {}
    if found.username is not None:
        words = f"{unquote(found.username)}:{unquote(found.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(words).decode()}"
    return Proxy(found.hostname, port, headers)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
