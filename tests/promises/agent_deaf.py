"""`python -m tests.promises.agent_deaf RUN.yaml COMMAND...`: the real agent with a fault: its watch of the metadata
server dies at the value BREAK; with SPOT_TEST_FAULT set, so does its first attempt."""

from __future__ import annotations

import os
import runpy
from collections.abc import AsyncGenerator

from agent.notices.metadata import MetadataClient
from agent.run.daemon import Daemon

FAULT = RuntimeError("a fault of ours, which nobody expects")
watch = MetadataClient.watch


async def dying(self: MetadataClient, path: str) -> AsyncGenerator[str]:
    async for value in watch(self, path):
        yield value
        if value == "BREAK":
            raise FAULT


async def failing(_daemon: Daemon) -> int:
    raise FAULT


if __name__ == "__main__":
    MetadataClient.watch = dying  # type: ignore[method-assign]
    if os.environ.get("SPOT_TEST_FAULT"):
        setattr(Daemon, "_attempts", failing)  # noqa: B010 - a fault, on purpose
    runpy.run_module("tests.promises.agent_with", run_name="__main__")
