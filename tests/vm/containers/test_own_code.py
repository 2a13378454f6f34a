"""A user's code, requirements and setup reach a VM, and train there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.vm.containers.group import Group

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]

STEPS = 24
SETUP = 'echo "set up by $0"\nmkdir -p /var/tmp/theirs\necho 3 > /var/tmp/theirs/width\n'
TRAIN = f"""
import sys
import time
from pathlib import Path

import brought
import torch
from spot_training import Session

width = int(Path("/var/tmp/theirs/width").read_text())
try:
    import pydantic
except ImportError:
    print("apart", sys.prefix, Path.cwd(), brought.VALUE, flush=True)
torch.manual_seed(brought.VALUE)
model = torch.nn.Linear(width, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Session.open() as session:
    begun = session.track(model=model, optimizer=optimizer)
    for step in session.steps({STEPS}):
        if step == 12 and begun == 0:
            time.sleep(60)  # until this VM is taken away
        loss = model(torch.randn(8, width)).square().mean()
        loss.backward()
        with session.update():
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=loss.item(), lr=0.1)
    session.finish(lambda folder: (folder / "weights").write_text(repr(model.weight.tolist())))
"""


def test_a_users_code_requirements_and_setup_train_on_a_vm_and_the_next_one_finds_its_environment(
    own_code: Callable[..., Group],
) -> None:
    group = own_code(setup=SETUP, train=TRAIN)
    first = group.boot()
    told = first.wait("trainer_output", where=lambda line: line.text.startswith("apart"), timeout=90.0)
    assert told.text == "apart /var/lib/spot-training/environment /var/lib/spot-training/code 7"
    assert first.wait("environment_ready").source == "made"
    assert first.wait("prepare_output", where=lambda line: "set up by" in line.text).text == "set up by setup.sh"
    first.wait("environment_kept")
    first.wait("committed")
    first.preempt()
    second = group.boot()
    finished = group.finish()
    assert second.wait("environment_ready").source == "bucket"
    assert [line["step"] for line in finished["lines"]] == list(range(STEPS))
    assert list(finished["result"]) == ["weights"]
    assert [record["attempt"] for record in group.resumes()] == [1, 2]
