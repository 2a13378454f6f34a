"""`python -m tests.promises.agent_deaf RUN.yaml COMMAND...`: the real agent, whose watch of the metadata server dies at
the value BREAK."""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator

from agent.notices.metadata import MetadataClient

watch = MetadataClient.watch


async def dying(self: MetadataClient, path: str) -> AsyncGenerator[str]:
    async for value in watch(self, path):
        yield value
        if value == "BREAK":
            raise RuntimeError("a fault of ours, which nobody expects")


if __name__ == "__main__":
    MetadataClient.watch = dying  # type: ignore[method-assign]
    runpy.run_module("tests.promises.agent_with", run_name="__main__")
