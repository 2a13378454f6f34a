"""Starting: a trainer's process, noted before it begins, so that an agent that dies from there on finds it again."""

from __future__ import annotations

import os

from agent.config.program import Program
from agent.trainer.changes import remember
from agent.trainer.host import SOCKET, Host
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.scope import move_to_scope
from agent.vm.systemd import trainer_environment


async def start_process(host: Host, program: Program, attempt: int) -> tuple[Trainer, TrainerRecord]:
    """Start `program` as the trainer of `attempt`. Raises OSError where this VM does not let it."""
    env = trainer_environment(os.environ) | dict(program.env)
    env |= {
        "SPOT_AGENT_SOCKET": str(host.state_dir / SOCKET),
        "SPOT_RUN_FILE": str(host.run_file),
        "SPOT_RUN_ID": host.run.run_id,
    }
    process = Trainer.hold(env=env, cwd=program.folder, log_file=host.log_file)
    try:
        if host.unit:
            await move_to_scope(process.pid, attempt=attempt, unit=host.unit)
        record = TrainerRecord.of(process, attempt)
        record.write(host.record_file)
        remember(host.run, host.record_file)
        process.release(program.command)
    except BaseException:
        await process.stop(grace=0.0)
        raise
    return process, record
