"""How a rehearsal is told: a table of what was done, the first difference and its likeliest cause; or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.operate.rehearse.compare import Difference
from infra.operate.rehearse.records import Life
from infra.operate.rehearse.rehearsal import Verdict

_SHOWN = 8


def as_json(verdict: Verdict) -> str:
    """The whole outcome for other programs."""
    values = {
        "outcome": verdict.outcome,
        "exact": verdict.outcome == "exact",
        "steps": verdict.steps,
        "seconds": verdict.seconds,
        "why": verdict.why,
        "differences": [asdict(each) for each in verdict.differences],
        "causes": verdict.causes,
        "notes": verdict.notes,
        "lives": [
            {
                "life": life.number,
                "began_at_step": life.first,
                "safe_before": life.committed,
                "boundaries": len(life.boundaries),
                "struck": {"moment": life.struck.moment, "step": life.struck.step, "how": life.struck.how}
                if life.struck
                else None,
            }
            for life in (verdict.struck.lives if verdict.struck else ())
        ],
    }
    return json.dumps(values, indent=1)


def show(console: Console, verdict: Verdict, out: Path) -> None:
    """For people."""
    if verdict.struck:
        console.print(_table(verdict))
    for each in verdict.differences[:_SHOWN]:
        console.print(Text(_sentence(each)))
    if len(verdict.differences) > _SHOWN:
        console.print(Text(f"and {len(verdict.differences) - _SHOWN} more at the same boundary"))
    for place, cause in enumerate(verdict.causes):
        first = "why" if verdict.outcome == "refused" else "likeliest cause"
        before, style = (first, "bold") if place == 0 else ("   or", "")
        console.print(Text(f"{before}: {cause}", style=style))
    for note in verdict.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text(_conclusion(verdict), style="bold green" if verdict.outcome == "exact" else "bold red"))
    console.print(Text(f"{verdict.seconds:.0f} s; all records: {out}", style="dim"))


def _table(verdict: Verdict) -> Table:
    table = Table(title="Struck, and back", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("life", "began at", "safe before", "trained to", "struck in", "how", "same"):
        table.add_column(heading, justify="left" if heading in ("struck in", "how", "same") else "right")
    wrong = verdict.differences[0].life if verdict.differences else 0
    for life in verdict.struck.lives if verdict.struck else ():
        table.add_row(
            str(life.number),
            _number(life.first),
            _number(life.committed),
            _number(max(life.boundaries, default=None)),
            f"{life.struck.moment}, step {life.struck.step}" if life.struck else "-",
            life.struck.how if life.struck else "-",
            _same(life, wrong),
        )
    return table


def _same(life: Life, wrong: int) -> str:
    if wrong and life.number > wrong:
        return ""
    return "no" if life.number == wrong else "yes"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _sentence(each: Difference) -> str:
    match each.kind:
        case "failure":
            return each.found
        case "around":
            return f"life {each.life}, step {each.step}: `{each.name}` is {each.found}, undisturbed {each.wanted}"
        case "metrics":
            return f"the metrics of step {each.step}: {each.name} is {each.found}, undisturbed {each.wanted}"
        case _:
            return f"life {each.life}, boundary {each.step}: {each.name} is {each.found}, undisturbed {each.wanted}"


def _conclusion(verdict: Verdict) -> str:
    match verdict.outcome:
        case "exact":
            lives = len(verdict.struck.lives) if verdict.struck else 0
            return f"EXACT: {verdict.steps} steps in {lives} lives are those of the undisturbed run, bit for bit."
        case "unsteady":
            return "NOT THE SAME TWICE: the script differs from itself, undisturbed. Nothing can resume it exactly."
        case "refused":
            return "REFUSED: the session says itself, undisturbed, that a resume would not be exact."
        case "failed":
            return f"NOT REHEARSED: {verdict.why}"
        case _:
            return "NOT EXACT: it does not come back as it was."
