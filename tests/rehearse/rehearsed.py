"""What a rehearsal says of a script, played in the theatre."""

from __future__ import annotations

import ast
from pathlib import Path

from infra.operate.rehearse.plan import plan_strikes
from infra.operate.rehearse.play import refusal_in
from infra.operate.rehearse.rehearsal import Verdict, judge, judge_twins
from tests.rehearse.theatre import Theatre, Zygote

STEPS = 14
MOST = 5  # strikes: enough for what one of these scripts can hide


def rehearsed(zygote: Zygote, script: Path, out: Path) -> Verdict:
    theatre = Theatre(zygote, script, out, STEPS)
    one = theatre.undisturbed("undisturbed")
    if sentence := refusal_in(out / "undisturbed" / "trainer.log"):
        return Verdict("refused", causes=[sentence])
    if one.failure:
        return Verdict("failed", why=one.failure)
    other = theatre.undisturbed("undisturbed-again")
    verdict = judge_twins(one, other)
    if verdict:
        return verdict
    steps = max(one.lives[0].boundaries)
    strikes = plan_strikes(one.lives[0].moments, steps=steps, drawn=0, seed=0)
    return judge(one, other, theatre.struck("struck", strikes[:MOST]))


def told(verdict: Verdict) -> str:
    """All that its user reads of it."""
    differences = [f"{each.name} {each.wanted} {each.found}" for each in verdict.differences]
    return "\n".join([verdict.why, *verdict.causes, *differences])


def names_in(script: Path) -> list[str]:
    """What a script's fault is called: its NAMES."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAMES":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []
