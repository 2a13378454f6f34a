"""The way out for calls to Google's other APIs: through the same proxies as the bucket's, refused in the same words."""

from __future__ import annotations

import httpx2

from agent.store.proxy import find_proxy


def outgoing(base: str) -> httpx2.AsyncHTTPTransport:
    """A transport to `base`. Raises StoreError where the environment names a proxy that can't be used: httpx2 by itself
    would raise ImportError for any SOCKS proxy, also one for other addresses."""
    proxy = find_proxy(base)
    through = httpx2.Proxy(f"http://{proxy.host}:{proxy.port}", headers=proxy.headers) if proxy else None
    return httpx2.AsyncHTTPTransport(verify=base.startswith("https:"), proxy=through)
