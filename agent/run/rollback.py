"""Going back after a spike: once, or as often as the run file says; then the run stops."""

from __future__ import annotations

import asyncio

import structlog

from agent.checkpoint.rollback import Noted, NoWayBack, roll_back
from agent.run.judgement import GaveUp
from agent.trainer.attempt import Attempt
from agent.trainer.host import Host

log = structlog.get_logger()

_CALL_TIMEOUT_S = 30.0


async def go_back(host: Host, attempt: Attempt) -> None:
    """Have the next attempt begin from before the spike that ended this one. Asked again, it does nothing twice.

    Raises:
        GaveUp: it is one spike too many, or there is no checkpoint from before it.
        StoreError, Superseded: as the line.
    """
    noted, rule, saver = attempt.spikes.noted, attempt.spikes.rule, host.saver
    assert noted is not None and rule is not None
    newest = await asyncio.to_thread(saver.checkpoints.line.newest, timeout=_CALL_TIMEOUT_S)
    before = [each for each in (newest.spikes if newest else ()) if each["attempt"] != attempt.number]
    incident = attempt.incident("spike", "metrics", detail=_in_words(noted))
    if len(before) >= rule.times:
        await host.ledger.write(incident)
        last = before[-1]
        raise GaveUp(
            f"{_in_words(noted)}. The run has gone back {len(before)} times already, the last time from step "
            f"{last['step']} to {last['back_to']}: look at the data and the learning rate there. To let it go back "
            f"once more, write supervision.spike.times: {len(before) + 1}{'' if rule.skip else ', and skip: true'}"
        )
    try:
        noted = await asyncio.to_thread(
            roll_back, saver.checkpoints, noted, claimant=saver.claimant, timeout=_CALL_TIMEOUT_S
        )
    except NoWayBack as error:
        await host.ledger.write(incident)
        raise GaveUp(f"{_in_words(noted)}, and {error}") from None
    await saver.share(0, [])  # what is in memory is of after it, or older than what is in the bucket
    saver.committed_step = noted.back_to
    attempt.count_loss(incident, until=incident.at)
    passes = "; the data that it was seen with is passed over" if noted.data else ""
    incident.detail = f"{_in_words(noted)}: back to step {noted.back_to}{passes}"
    log.warning(
        "rolled_back", metric=noted.metric, step=noted.step, back_to=noted.back_to, without=list(noted.without),
        data=noted.data, steps_lost=incident.steps_lost,
    )  # fmt: skip
    await host.ledger.write(incident)


def _in_words(noted: Noted) -> str:
    said = noted.value if isinstance(noted.value, str) else f"{noted.value:.6g}"
    against = f", {noted.value / noted.median:.3g} times the {noted.median:.6g} of before" if (
        noted.median and not isinstance(noted.value, str)
    ) else ""  # fmt: skip
    return f"{noted.metric} is {said} at step {noted.step}{against}"
