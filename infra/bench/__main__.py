"""`make bench`: measure saving, restoring, noticing and the agent itself, each beside a peer where there is one.

    python -m infra.bench [--only NAME ...] [--tries N] [--size-gb GB] [--out FILE]

The results file holds `machine` (what the figures depend on), `settings`, one entry for each measurement that ran
(`stall`, `save` and `restore` with `unthrottled` and `throttled`, `notice`, `flood`, `data`, `pictures`, `folder`,
`footprint`; the `Result` of each module says what is in it; `save.notice_to_committed_s` is of one real preemption at
the end) and
`targets` (name, value, bound, limit, unit, met). `state`: bytes and count of the tensors; `peer`: where torch.save was
fastest, and whether torch.load was with mmap.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.bench import data, flood, folder, footprint, notice, pictures, restore, save, stall, tables
from infra.bench.figures import BenchError, Target, machine_facts
from infra.bench.memory import huge_pages
from infra.bench.rig import BUCKET, running_rig
from infra.local.storage.control import StorageControl, running_storage
from infra.local.vm import VmError

NAMES = ("stall", "save", "restore", "notice", "flood", "data", "pictures", "folder", "footprint")
THROTTLED = {"stream_bytes_per_s": 100e6, "total_bytes_per_s": 3e9, "first_byte_s": 0.03}
_SHM = Path("/dev/shm")  # noqa: S108 - memory, to give the peer the fastest file there is


@dataclass(frozen=True)
class Settings:
    """How much and how often. `size`: bytes of parameters and moments."""

    size: int = 1_200_000_000
    tries: int = 5
    notices: int = 200
    polls: int = 5
    idle_s: float = 20.0
    only: tuple[str, ...] = NAMES


def run(settings: Settings, out: Path, console: Console) -> dict[str, Any]:
    """Measure, print, and write `out` (aside, then renamed). Returns what is in it."""
    results: dict[str, Any] = {"machine": machine_facts(), "settings": asdict(settings)}
    targets: list[Target] = []
    console.print(tables.machine(results["machine"]))
    if "stall" in settings.only:
        console.print("staging ...", style="dim")
        result = stall.measure(size=settings.size, tries=settings.tries)
        results["stall"] = result
        targets += stall.targets(result)
        console.print(tables.stall(result))
    if "notice" in settings.only:
        console.print("notices ...", style="dim")
        latency = notice.measure(settings.notices, settings.polls)
        results["notice"] = latency
        targets += notice.targets(latency)
        console.print(tables.notice(latency))
    if "data" in settings.only:
        console.print("batches ...", style="dim")
        batches = data.measure(tries=settings.tries)
        results["data"] = batches
        targets += data.targets(batches)
        console.print(tables.data(batches))
    if "pictures" in settings.only:
        console.print("pictures ...", style="dim")
        shown = pictures.measure(tries=settings.tries)
        results["pictures"] = shown
        targets += pictures.targets(shown)
        console.print(tables.pictures(shown))
    if {"save", "restore", "flood", "folder", "footprint"} & {*settings.only}:
        targets += _with_storage(settings, results, console)
    results["targets"] = [target.as_json() for target in targets]
    console.print(tables.targets(targets))
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".new")
    aside.write_text(json.dumps(results, indent=1) + "\n")
    aside.replace(out)
    console.print(f"written to {out}", style="dim")
    return results


def _with_storage(settings: Settings, results: dict[str, Any], console: Console) -> list[Target]:
    targets: list[Target] = []
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=_SHM)))
        # Room for a checkpoint of each side and one on its way, so that the server never waits for fresh memory.
        room = int(3.1 * settings.size) if {"save", "restore", "folder"} & {*settings.only} else 0
        storage = stack.enter_context(running_storage(preallocate=room, start_timeout=120.0))
        storage.create_bucket(BUCKET)
        before = os.environ.get("STORAGE_EMULATOR_HOST")
        stack.callback(_set_environment, before)
        _set_environment(storage.url)
        if "flood" in settings.only:
            console.print("notices under a flood of output ...", style="dim")
            flooded = flood.measure(storage, place, notices=max(2, settings.notices // 2))
            results["flood"] = flooded
            targets += flood.targets(flooded)
            console.print(tables.flood(flooded))
        if "folder" in settings.only:
            console.print("a program's folder ...", style="dim")
            files = folder.measure(storage, place, size=settings.size, tries=settings.tries)
            results["folder"] = files
            targets += folder.targets(files)
            console.print(tables.folder(files))
        if "footprint" in settings.only:
            console.print("the agent's footprint ...", style="dim")
            result = footprint.measure(storage, place, tries=settings.tries, idle_s=settings.idle_s)
            results["footprint"] = result
            targets += footprint.targets(result)
            console.print(tables.footprint(result))
        if {"save", "restore"} & {*settings.only}:
            targets += _with_rig(settings, storage, [place, memory], results, console)
    return targets


def _with_rig(
    settings: Settings, storage: StorageControl, folders: list[Path], results: dict[str, Any], console: Console
) -> list[Target]:
    targets: list[Target] = []
    with running_rig(storage, folders[0], size=settings.size) as rig:
        results["state"] = rig.ask("tensors")
        file, mapped = rig.ask("choose_way", folders)
        results["peer"] = {"file": "memory" if file.is_relative_to(_SHM) else "disk", "mmap": mapped}
        for name, limits, warm_up in (("unthrottled", {}, 1), ("throttled", THROTTLED, 0)):
            storage.throttle(**limits)
            if "save" in settings.only:
                console.print(f"emergency saves, {name} ...", style="dim")
                saved = save.measure(rig, tries=settings.tries, warm_up=warm_up)
                results.setdefault("save", {})[name] = saved
                targets += save.targets(name, saved)
                console.print(tables.save(name, saved, results["peer"]["file"]))
            if "restore" in settings.only:
                console.print(f"restores, {name} ...", style="dim")
                if "save" not in settings.only:
                    rig.save_ours()
                    rig.ask("save_peer")
                restored = restore.measure(rig, tries=settings.tries, warm_up=warm_up)
                results.setdefault("restore", {})[name] = restored
                targets += restore.targets(name, restored)
                console.print(tables.restore(name, restored))
        storage.throttle()
        if "save" in settings.only:
            results["save"]["notice_to_committed_s"] = round(rig.preempt(), 4)
            console.print(tables.preemption(results["save"]["notice_to_committed_s"]))
    return targets


def _set_environment(url: str | None) -> None:
    if url is None:
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
    else:
        os.environ["STORAGE_EMULATOR_HOST"] = url


def main() -> None:
    """Parse the options, run."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m infra.bench", description="Measure, beside peers; see the README.")
    parser.add_argument("--only", action="append", choices=NAMES, help="one measurement (may be given again)")
    parser.add_argument("--tries", type=int, default=default.tries, help="of each side (default: %(default)s)")
    parser.add_argument("--size-gb", type=float, default=default.size / 1e9, help="of state (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/bench/results.json"), help="results file (default: %(default)s)"
    )
    options = parser.parse_args()
    settings = Settings(size=int(options.size_gb * 1e9), tries=options.tries, only=tuple(options.only or default.only))
    try:
        with huge_pages():
            run(settings, options.out, Console())
    except (BenchError, VmError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
