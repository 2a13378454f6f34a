"""How the figures are printed."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from infra.bench.data import Result as DataResult
from infra.bench.figures import Spread, Target
from infra.bench.flood import Flood
from infra.bench.flood import Result as FloodResult
from infra.bench.folder import Result as FolderResult
from infra.bench.footprint import Result as FootprintResult
from infra.bench.notice import Result as NoticeResult
from infra.bench.pictures import Result as PicturesResult
from infra.bench.restore import Result as RestoreResult
from infra.bench.save import Result as SaveResult
from infra.bench.stall import Result as StallResult


def machine(facts: dict[str, Any]) -> str:
    return (
        f"{facts['date']}: {facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['kernel']}, "
        f"torch {facts['torch']}, load {facts['load_before']}, "
        + (
            "arenas in huge pages"
            if facts["arenas_in_huge_pages"]
            else "arenas in small pages: root measures as a VM has it"
        )
    )


def stall(result: StallResult) -> Table:
    stage, loop = result["stage"], result["loop"]
    table = _table(f"What a save holds up: {result['bytes'] / 1e9:.2f} GB in {result['tensors']} tensors")
    table.add_row("torch copies them", _seconds(stage["peer"]))
    table.add_row("staged into the arena", _seconds(stage["ours"]), f"[bold]{result['times_copy']:.2f} x")
    table.add_row("a step without a save", _seconds(loop["plain_step"]))
    table.add_row("a step with one in its middle", _seconds(loop["saving_step"]), f"{loop['stall_s'] * 1e3:+.0f} ms")
    table.add_row("its update waited", _seconds(loop["waited"]))
    return table


def data(result: DataResult) -> Table:
    table = _table("What a loop waits for 1,000 batches: seconds here are milliseconds a batch")
    for name, side in (("32 small rows", result["small"]), ("16 pictures by two workers", result["workers"])):
        table.add_row(f"{name}, torch's loader", _seconds(side["peer"]))
        table.add_row(f"{name}, ours", _seconds(side["ours"]))
    table.add_row("saying where it is", f"{result['state_us']:.1f} us")
    return table


def pictures(result: PicturesResult) -> Table:
    table = _table("256 JPEG files of 640 x 480 to pixels of 384 x 384, by two workers")
    ours, peer = result["pictures_per_s"]
    table.add_row("ours", _seconds(result["seconds"]["ours"]), f"{ours:.0f} pictures/s")
    table.add_row("torch's DataLoader", _seconds(result["seconds"]["peer"]), f"{peer:.0f} pictures/s")
    table.add_row("a loop of 0.5 s steps waits", f"{result['wait_ms']:.1f} ms")
    table.add_row("saying where it is", f"{result['state_us']:.1f} us, {result['state_bytes']} bytes")
    table.add_row("first batch, from the start", _seconds(result["first_batch"]))
    table.add_row("first batch, from an epoch's middle", _seconds(result["resumed_batch"]))
    return table


def notice(result: NoticeResult) -> Table:
    table = _table("Notice to agent", "p50", "p99", "longest")
    for name, latency in (("the agent's long poll", result["long_poll"]), ("a poll every second", result["poll_1s"])):
        figures = (f"{latency['p50_ms']:.1f} ms", f"{latency['p99_ms']:.1f} ms", f"{latency['max_ms']:.1f} ms")
        table.add_row(f"{name} ({latency['count']})", *figures)
    return table


def flood(result: FloodResult) -> Table:
    table = _table("Notice to agent, p50 and p99, beside a trainer that prints", "preempted", "SIGTERM", "agent")
    kinds: tuple[tuple[str, Flood], ...] = (
        ("nothing", result["silence"]),
        ("1 M lines/s", result["lines"]),
        ("a line without end", result["no_end"]),
        ("a progress bar", result["progress"]),
    )
    for name, found in kinds:
        both = [f"{of['p50_ms']:.1f}, {of['p99_ms']:.1f} ms" for of in (found["metadata"], found["sigterm"])]
        table.add_row(f"{name}, {found['bytes_per_s'] / 1e6:.0f} MB/s", *both, f"{found['agent_percent']:.1f} %")
    table.add_row("", f"[bold]p99: {result['worst_ratio']:.1f} x")
    return table


def save(name: str, result: SaveResult, peer_file: str) -> Table:
    durable = result["durable"]
    table = _table(f"Emergency save, {name}")
    table.add_row("order to staged", _seconds(result["staged"]))
    table.add_row("order to committed", _seconds(durable["ours"]), _rate(result["gigabytes_per_s"]))
    table.add_row(f"torch.save ({peer_file})", _seconds(result["peer_write"]))
    table.add_row("torch.save + upload", _seconds(durable["peer"]), _rate(result["peer_gigabytes_per_s"]))
    table.add_row("", f"[bold]{durable['ratio']:.1f} times faster")
    return table


def preemption(seconds: float) -> str:
    return f"A real preemption, notice to committed: {seconds:.3f} s\n"


def restore(name: str, result: RestoreResult) -> Table:
    restored = result["restored"]
    table = _table(f"Restore, {name}")
    table.add_row("fetched and verified", _seconds(result["fetch"]))
    table.add_row("loaded", _seconds(result["load"]))
    table.add_row("both", _seconds(restored["ours"]), _rate(result["gigabytes_per_s"]))
    table.add_row("download to a file", _seconds(result["peer_download"]))
    table.add_row("torch.load, load_state_dict", _seconds(result["peer_load"]))
    table.add_row("both", _seconds(restored["peer"]), _rate(result["peer_gigabytes_per_s"]))
    table.add_row("", f"[bold]{restored['ratio']:.1f} times faster")
    return table


def folder(result: FolderResult) -> Table:
    title = f"A program's folder: {result['files']} files, {result['bytes'] / 1e9:.2f} GB"
    table = _table(title, "ours", "transfer_manager", "")
    table.add_row("held: the program writes on", _seconds(result["held"]), "", "")
    rows = (("notice to commit", result["committed"]), ("agent up to restored", result["restored"]))
    for what, both in rows:
        times = f"[bold]{both['ratio']:.1f} times faster"
        table.add_row(what, _seconds(both["ours"]), _seconds(both["peer"]), times)
    table.add_row("one file changed", _seconds(result["again"]), f"{result['again_sent_bytes'] / 1e6:.1f} MB sent", "")
    return table


def footprint(result: FootprintResult) -> Table:
    table = _table("The agent")
    table.add_row("exec to agent_started", _seconds(result["started"]))
    table.add_row("exec to trainer_started", _seconds(result["trainer_started"]))
    table.add_row("private memory", f"{result['private_bytes'] / 1e6:.1f} MB")
    table.add_row(f"idle for {result['idle_s']:.0f} s", f"{result['idle_percent']:.2f} % of a core")
    return table


def targets(found: list[Target]) -> Table:
    table = _table("Targets", "measured", "", "")
    for target in found:
        verdict = "met" if target.met else "[bold red]missed"
        table.add_row(target.name, f"{target.value:g} {target.unit}", f"{target.bound} {target.limit:g}", verdict)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=bool(columns), box=None)
    for column in ("", *(columns or ("", ""))):
        table.add_column(column, no_wrap=True)
    return table


def _seconds(spread: Spread) -> str:
    """The median, and where the tries lie."""
    return f"{spread['median_s']:6.3f} s ({spread['min_s']:.3f} to {spread['max_s']:.3f})"


def _rate(gigabytes_per_s: float) -> str:
    return f"{gigabytes_per_s:.2f} GB/s"
