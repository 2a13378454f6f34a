"""A run's standing for people, and as JSON. What is not known is said so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.operate.status.standing import Standing

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
_SHOWN = 5
_STYLES = {"complete": "bold green", "training": "bold", "gave up": "bold red", "stopped": "yellow"}
_NOT_KNOWN = Text("not known", style="dim")


def curve(values: Sequence[float], width: int = _WIDTH) -> str:
    """A small curve of `values`, each column the mean of its share; a gap where none of them is a number."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    drawn = ""
    for column in range(min(width, len(values))):
        columns = min(width, len(values))
        share = values[len(values) * column // columns : len(values) * (column + 1) // columns]
        known = [value for value in share if math.isfinite(value)]
        height = (sum(known) / len(known) - low) / (high - low) if known and high > low else 0.0
        drawn += _BARS[min(len(_BARS) - 1, int(height * len(_BARS)))] if known else " "
    return drawn


def duration(seconds: float) -> str:
    """As people say it: 8.2 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError


def draw(standing: Standing, name: str) -> RenderableType:
    """The picture."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    head = Text(standing.run_id, style="bold").append(f"  {_state(standing)}", style=_STYLES.get(standing.state, ""))
    for label, value in _rows(standing):
        table.add_row(label, value)
    table.add_row("bucket", name)
    return Group(head, table)


def _state(standing: Standing) -> str:
    """Its state, as far as a bucket can tell it."""
    heard = "" if standing.heard_s is None else f", last heard of {duration(standing.heard_s)} ago"
    match standing.state:
        case "not begun":
            return "not begun: nothing is in its bucket"
        case "complete":
            return "complete"
        case "training":
            return f"training, as far as its bucket tells{heard}"
        case "starting":
            return f"starting, or further: a VM has claimed it, and no step or save since is in its bucket{heard}"
        case "between VMs":
            return f"between two VMs{heard}"
        case "at a border":
            return f"at the border of two stages: no VM of the next one has claimed it yet{heard}"
        case "stopped":
            return f"stopped by its operator{heard}"
        case "gave up":
            return f"gave up{heard}: `spot logs` says why"


def _rows(standing: Standing) -> list[tuple[str, RenderableType]]:
    if standing.state == "not begun":
        return []
    rows: list[tuple[str, RenderableType]] = []
    attempt = f"{standing.attempt} on {standing.vm}" if standing.vm else f"{standing.attempt}"
    rows.append(("attempt", attempt))
    if standing.counts_saves:
        own = standing.program_step
        known = "the program's own steps are not known here" if own is None else f"the program's step {own}"
        rows.append(("save", f"number {standing.step}; {known}"))
    else:
        rows.append(("step", _step(standing)))
        if standing.stage and standing.state != "complete":
            rows.append(("stage", standing.stage))
        rate = (
            None
            if standing.step_s is None
            else f"{_number(1 / standing.step_s)} steps/s ({duration(standing.step_s)} each)"
        )
        rows.append(("rate", rate or _NOT_KNOWN))
    if standing.state != "complete":
        left = standing.seconds_left
        rows.append(("to the end", _NOT_KNOWN if left is None else f"{duration(left)} of training"))
    rows.append(("loss", _loss(standing)))
    rows.append(("safe", _safe(standing)))
    if standing.state != "complete":
        rows.append(("at risk now", _at_risk(standing)))
    if standing.incidents:
        rows.append(("incidents", _incidents(standing)))
    if standing.result:
        rows.append(("result", standing.result))
    return rows


def _step(standing: Standing) -> str:
    if standing.steps is None:
        return f"{standing.step}, of how many is not known"
    share = (standing.step or 0) / standing.steps if standing.steps else 1.0
    return f"{standing.step} of {standing.steps} ({share:.0%})"


def _loss(standing: Standing) -> RenderableType:
    if not standing.losses:
        return _NOT_KNOWN
    step, loss = standing.losses[-1]
    return f"{loss:.4g} at step {step}  {curve([loss for _, loss in standing.losses])}"


def _safe(standing: Standing) -> RenderableType:
    if standing.commit is None:
        return _NOT_KNOWN if standing.step else "nothing yet"
    counted = "save" if standing.counts_saves else "step"
    return f"{counted} {standing.commit.step}, committed {duration(standing.commit.age_s)} ago"


def _at_risk(standing: Standing) -> RenderableType:
    if standing.lose_seconds is None:
        return _NOT_KNOWN
    if not standing.lose_seconds:
        return "nothing: no VM trains it"
    steps = "" if standing.lose_steps is None or standing.counts_saves else f", about {standing.lose_steps:.0f} steps"
    return f"at most {duration(standing.lose_seconds)} of work{steps}, if the VM went without a notice"


def _incidents(standing: Standing) -> RenderableType:
    lost = [incident.get("steps_lost") for incident in standing.incidents]
    known = [steps for steps in lost if steps is not None]
    total = f"{len(standing.incidents) + standing.unread_incidents}; {sum(known)} steps were trained again"
    if len(known) < len(lost):
        total += f", of {len(lost) - len(known)} it is not known"
    lines = [Text(total)]
    for incident in list(standing.incidents)[-_SHOWN:]:
        steps = incident.get("steps_lost")
        cost = "not known what it cost" if steps is None else f"{steps} steps lost"
        at = str(incident["at_utc"])[:19].replace("T", " ")
        lines.append(Text(f"{at} UTC  {incident['kind'].replace('_', ' ')}, {cost}", style="dim"))
    return Group(*lines)


def _number(value: float) -> str:
    return f"{value:.3g}"


def table_of(runs: Sequence[tuple[str, Standing]]) -> RenderableType:
    """What `spot ls` shows."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "state", "step", "attempt", "committed", "where"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "where")
    for name, standing in runs:
        age = f"{duration(standing.commit.age_s)} ago" if standing.commit else "-"
        step = (
            "-" if standing.step is None else f"{standing.step}" + (f" of {standing.steps}" if standing.steps else "")
        )
        if standing.counts_saves and standing.step is not None:
            step = f"save {standing.step}" if standing.program_step is None else f"{standing.program_step}"
        table.add_row(standing.run_id, standing.state, step, f"{standing.attempt or '-'}", age, name)
    return table
