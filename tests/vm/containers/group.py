"""A managed instance group of one, with its run: the scenarios' world, and what the checks at the end ask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from agent.checkpoint.line import Line
from agent.checkpoint.results import is_complete
from agent.store import Store
from infra.local.bucket import RunRecords
from infra.packing import Code, listed, pack_code, store_code
from tests.agent.program.brought import code
from tests.vm.containers.cloud import BUCKET, PREFIX, Cloud
from tests.vm.containers.journal import VmError
from tests.vm.containers.machine import Vm

FOLDER = "/var/lib/train"
_TOY_UNIT = """[Service]
ExecStart=
ExecStart=/opt/spot-training/venv/bin/python -m tests.vm.containers.guest.toy_agent run /etc/spot-training/run.yaml
Environment=PYTHONPATH=/opt/spot-tests OMP_NUM_THREADS=1
"""
_STARTUP = Path(__file__).parents[3] / "infra/stacks/fleet/runtime/startup.sh"
AGENT_DROP_IN = "systemd/system/spot-agent.service.d"


def _run_file(run_id: str, *, steps: int, every: str, keep: int, **sections: Any) -> dict[str, Any]:
    run = {
        "run_id": run_id,
        "checkpoint": {"bucket": f"gs://{BUCKET}/{PREFIX}", "every": every, "keep": keep},
        "machine": {"notice": "0 s", "shutdown_window": "30 s"},
        "supervision": {"stop_grace": "1 s", "crash_limit": 3},
    }
    for name, values in sections.items():
        run[name] = {**run.get(name, {}), **values}  # type: ignore[dict-item]
    return run


@dataclass
class Group:
    """`with Group(...) as group:` and `group.boot()`; each boot has the same name and an empty disk."""

    cloud: Cloud
    folder: Path
    run: dict[str, Any]
    attributes: dict[str, str] = field(default_factory=dict)
    etc: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    """Where Google's other services are for the VMs (`Cloud.compute`, `Cloud.logging`): SPOT_..._URL."""
    vms: list[Vm] = field(default_factory=list)
    name: str = "trainer"
    skew_s: float = 0.0
    """How far the VM's wall clock is off."""
    slow_notice: bool = False
    """The notice was held back on purpose, or the agent was not there to hear it."""

    @classmethod
    def of_toy(cls, cloud: Cloud, folder: Path, *, toy: Mapping[str, Any] | None = None, **changes: Any) -> Self:
        """A run of the toy (PyTorch); `toy` are its TOY_ variables, in lower case and without that."""
        values: dict[str, Any] = {"steps": 12, "every": "4 steps", "keep": 2} | changes
        steps = values["steps"]
        run = _run_file(
            cloud.new_run(),
            **values,
            model={"config": {"model_type": "qwen3"}},
            data={"source": "stdlib", "tokenizer": {"train_vocab_size": 512}},
            training={"global_batch": 8, "micro_batch": 8, "max_steps": steps},
            workload={"env": {f"TOY_{key.upper()}": str(value) for key, value in (toy or {}).items()}},
        )
        return cls(cloud, folder, run, etc={f"{AGENT_DROP_IN}/toy.conf": _TOY_UNIT})

    @classmethod
    def of_program(cls, cloud: Cloud, folder: Path, *, steps: int = 600, **changes: Any) -> Self:
        """A run of any program (tests/promises/program.py): it counts in steps of 50 ms and knows nothing of us."""
        values: dict[str, Any] = {"steps": steps, "every": "auto", "keep": 2} | changes
        command = ["/usr/bin/python3", "/opt/spot-tests/tests/promises/program.py", FOLDER, str(steps)]
        workload = {"kind": "command", "command": command, "checkpoint_dir": FOLDER}
        return cls(cloud, folder, _run_file(cloud.new_run(), **values, workload=workload))

    @classmethod
    def of_own_code(cls, cloud: Cloud, folder: Path, *, setup: str, train: str, **changes: Any) -> Self:
        """A run of a user's own script below a shell script: with code, a requirement of its own, and a setup."""
        run_file = code(folder, train, setup=setup)
        (run_file.parent / "train.sh").write_text("exec python train.py\n")
        found = Code(run_file.parent, tuple(listed(run_file.parent)), 0)
        workload = {"kind": "script", "command": ["bash", "train.sh"], "requirements": "needs.txt", "setup": "setup.sh"}
        workload["code"] = store_code(pack_code(found, folder / "packed"), f"gs://{BUCKET}")
        values: dict[str, Any] = {"steps": 0, "every": "4 steps", "keep": 2} | changes
        return cls(cloud, folder, _run_file(cloud.new_run(), **values, workload=workload))

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def store(self) -> Store:
        return self.cloud.store(self.run_id)

    @property
    def vm(self) -> Vm:
        return self.vms[-1]

    def boot(self, *, name: str = "", image: str = "") -> Vm:
        """Create the VM, with its template's metadata, and switch it on."""
        attributes = {
            "startup-script": _STARTUP.read_text(),
            "spot-run": yaml.safe_dump(self.run),
            "spot-bundle": self.cloud.bundle_url,
            "spot-notice": str(self.run["machine"]["notice"]),
            **self.attributes,
        }
        number = len(self.vms) + 1
        folder = self.folder / f"{self.run_id}-{number}"
        vm = Vm(
            self.cloud,
            name or f"{self.name}-{self.run_id}",
            number,
            folder,
            attributes,
            image or self.cloud.warm,
            dict(self.etc),
            dict(self.services),
        )
        self.vms.append(vm)
        vm.power_on()
        return vm

    def toy(self, **variables: Any) -> None:
        """Other TOY_ variables from the next boot on."""
        self.run["workload"]["env"] = {f"TOY_{key.upper()}": str(value) for key, value in variables.items()}

    def finish(self, *, timeout: float = 120.0) -> dict[str, Any]:
        """Let the present VM train to the end; returns the run's outcome."""
        self.vm.wait("complete", timeout=timeout)
        done = time.monotonic() + 30.0
        while not is_complete(Line(self.store), timeout=10.0):
            if time.monotonic() > done:
                raise VmError(f"complete, and the line does not say so\n{self.vm.journal.tail()}")
            time.sleep(0.05)
        return self.outcome()

    def outcome(self) -> dict[str, Any]:
        """What must be equal to the uninterrupted run's: losses, learning rates and every bit of the final state."""
        records = RunRecords(self.store)
        lines = [{key: line[key] for key in ("step", "loss", "lr")} for line in records.metrics()]
        return {"lines": lines, "result": records.result()}

    def incidents(self) -> list[dict[str, Any]]:
        return [record for record in RunRecords(self.store).records() if record["record"] == "incident"]

    def resumes(self) -> list[dict[str, Any]]:
        return [record for record in RunRecords(self.store).records() if record["record"] == "resume"]

    def close(self) -> None:
        for vm in self.vms:
            vm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
