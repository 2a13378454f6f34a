"""Maker: has the run's program ready on this VM: code fetched, environment made, setup run. Then it can be started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import RunConfig
from agent.config.program import Program, program_of, trainer_folder, with_code
from agent.config.sections import ON_THEIR_OWN
from agent.program.archive import keep_environment
from agent.program.code import fetch_code
from agent.program.environment import Environment, make_environment
from agent.store import Store


def code_folder(run: RunConfig, run_file: Path, place: Path) -> Path:
    """Where the run's code is on this machine, or will be once it is fetched."""
    return place / "code" if run.workload.packed else trainer_folder(run, run_file)


@dataclass
class Maker:
    """`place`: a folder on this VM's disk. `store`: the run's. `command`: instead of the run file's own.
    `doing`: what it is at, for people; empty between."""

    run: RunConfig
    run_file: Path
    place: Path
    store: Store
    command: Sequence[str] | None = None
    doing: str = ""
    _environment: Environment | None = field(default=None, init=False)

    async def make(self) -> Program:
        """The program, ready to be started; what is there already is used. Raises StoreError where the bucket does not
        give it, PrepareError where it can't be made."""
        workload, code = self.run.workload, code_folder(self.run, self.run_file, self.place)
        until = time.monotonic() + self.run.supervision.prepare_timeout
        try:
            if workload.packed:
                self.doing = "fetching the program's code"
                await asyncio.to_thread(fetch_code, workload.code or "", code)
            if workload.kind in ON_THEIR_OWN and workload.brings_environment and self.command is None:
                self.doing = "making the program's environment"
                self._environment = Environment.of(workload, code, self.place)
                await make_environment(self._environment, workload, code, self.store, until=until)
        finally:
            self.doing = ""
        run = with_code(self.run, str(code)) if workload.packed else self.run
        folder = self._environment.folder if self._environment else None
        made = program_of(run, self.run_file, environment=folder)
        return Program(list(self.command), made.folder, made.env) if self.command is not None else made

    async def keep(self, stop: Callable[[], bool]) -> None:
        """Store the environment for the next VM. `stop`: what else goes first."""
        if self._environment is not None:
            await keep_environment(self.store, self._environment.key, self._environment.folder, stop=stop)
