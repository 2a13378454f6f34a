"""What the session promises to the loop that holds it, and tells the agent, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from spot_training import Session, SessionError, beats
from spot_training.framework import FrameworkSession
from spot_training.protocol.messages import (
    Border,
    Committed,
    Declined,
    Finish,
    Finished,
    Heartbeat,
    Hello,
    Line,
    Refused,
    Save,
    StageComplete,
    Staged,
)
from spot_training.state import StateError

from tests.spot_training.agent import FRESH, PATIENCE_S, Agent
from tests.spot_training.conftest import Position, Run

GLANCE_S = 0.1


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """One that listens where the environment says, with beats that come quickly."""
    monkeypatch.setattr(beats, "BEAT_S", 0.01)
    monkeypatch.setenv("SPOT_AGENT_SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setenv("SPOT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SPOT_RUN_ID", "mine")
    agent = Agent(tmp_path / "agent.sock")
    yield agent
    agent.close()


def track(session: Session, run: Run) -> int:
    return session.track(model=run.model, optimizer=run.optimizer, scheduler=run.scheduler, data=run.data)


def test_a_script_says_hello_for_the_run_that_the_agent_names(agent: Agent) -> None:
    with Session.open() as session:
        assert session.run_id == "mine"
        hello = agent.next(lambda message: isinstance(message, Hello))
    assert (hello.run_id, hello.attempt, hello.protocol) == ("mine", 0, 3)


def test_a_script_that_believes_to_train_another_run_says_so(agent: Agent) -> None:
    with Session.open("theirs"):
        assert agent.next(lambda message: isinstance(message, Hello)).run_id == "theirs"


def test_without_a_run_to_name_the_session_says_what_is_missing(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOT_RUN_ID")
    with pytest.raises(SessionError, match=r"SPOT_RUN_ID.*Session\.open\(RUN_ID\)"):
        Session.open()


def test_a_trainer_that_is_refused_says_so_in_the_agents_words(agent: Agent) -> None:
    with Session.open() as session:
        agent.trainer().send(Refused("rank 0 trains already, as process 12"))
        with pytest.raises(SessionError, match="rank 0 trains already, as process 12"):
            track(session, Run())


def test_a_long_start_a_long_restore_and_a_long_end_are_no_hang(agent: Agent) -> None:
    """The main thread is busy all the while, in code that knows nothing of us."""
    with Session.open() as session:
        trainer = agent.trainer()
        assert [agent.next_beat("starting").phase for _ in range(3)] == ["starting"] * 3
        done = threading.Thread(target=track, args=(session, Run()))
        done.start()
        assert [agent.next_beat("restoring").phase for _ in range(3)] == ["restoring"] * 3
        trainer.send(FRESH)
        done.join(PATIENCE_S)
        assert agent.next_beat("training") == Heartbeat(0, phase="training")

        def save(folder: Path) -> None:
            assert [agent.next_beat("finishing").phase for _ in range(3)] == ["finishing"] * 3

        step_once(session)
        finishing = threading.Thread(target=session.finish, args=(save,))
        finishing.start()
        staged = agent.next(lambda message: isinstance(message, Staged))
        trainer.send(Committed(staged.arena, staged.step))
        agent.next(lambda message: isinstance(message, Finish))
        assert [agent.next_beat("finishing").phase for _ in range(3)] == ["finishing"] * 3
        trainer.send(Finished())
        finishing.join(PATIENCE_S)
        assert not finishing.is_alive()


class Walk(Position):
    """Data that knows where it is, and can leave out some of itself."""

    def place(self) -> int:
        return self.at

    def pass_over(self, spans: Sequence[Any]) -> None:
        self.spans = spans


def test_each_line_tells_the_data_that_was_trained_on_since_the_one_before(agent: Agent) -> None:
    run = Run()
    run.data = Walk()
    run.data.at = 4
    with Session.open() as session:
        agent.trainer().send(replace(FRESH, passed_over={"data": [[7, 9]]}))
        track(session, run)
        for step in session.steps(3):
            run.step()
            if step != 1:
                session.log(loss=1.0)
        assert run.data.spans == [[7, 9]]
        lines = [agent.next(lambda message: isinstance(message, Line)) for _ in range(2)]
        session.close()  # nobody would commit its last step
    assert [(line.step, line.data) for line in lines] == [(0, {"data": [4, 5]}), (2, {"data": [5, 7]})]


def test_what_is_logged_between_two_boundaries_of_a_step_is_in_its_one_line_and_in_its_checkpoint(agent: Agent) -> None:
    run = Run()
    with FrameworkSession.open() as session:
        agent.trainer().send(replace(FRESH, every_steps=1))
        track(session, run)
        session.boundary(0)
        run.step()
        session.log(loss=0.5)
        for loss in (0.25, 0.125):  # a framework evaluates at the top of a step, and says so before and after
            session.boundary(session.step + 1)
            session.log(eval_loss=2.0)
            session.boundary(session.step)
            run.step()
            session.log(loss=loss)
        session.boundary(3)
        lines = [agent.next(lambda message: isinstance(message, Line)) for _ in range(3)]
        session.close()
    assert [(line.step, line.values.keys() - {"step", "time"}) for line in lines] == [
        (0, {"loss"}), (1, {"eval_loss", "loss"}), (2, {"eval_loss", "loss"}),
    ]  # fmt: skip
    snapshot = run.state.snapshot(run.state.note(1, line={"eval_loss": 2.0}))
    assert snapshot.values["line"] == {"eval_loss": 2.0}


@pytest.mark.parametrize("passed_over", [{}, {"other": [[7, 9]]}])
def test_what_can_not_pass_over_data_is_refused_before_the_first_step(agent: Agent, passed_over: Any) -> None:
    with Session.open() as session:
        agent.trainer().send(replace(FRESH, passed_over=passed_over))
        with pytest.raises(StateError, match=r"supervision\.spike\.skip.* can pass over data"):
            track(session, Run())


def step_once(session: Session) -> None:
    for _ in session.steps(session.step + 1):
        with session.update():
            pass


def test_a_loop_that_hangs_is_silent_however_alive_its_process_is(agent: Agent) -> None:
    with Session.open() as session:
        agent.trainer().send(FRESH)
        track(session, Run())
        agent.next_beat("training")
        with session.phase("evaluating"):
            assert agent.next_beat("evaluating") == Heartbeat(0, phase="evaluating")
            silent(agent)
            session.beat()
            assert agent.next_beat("evaluating") == Heartbeat(0, phase="evaluating")
        assert agent.next_beat("training") == Heartbeat(0, phase="training")
        silent(agent)


def silent(agent: Agent) -> None:
    threading.Event().wait(10 * beats.BEAT_S)
    assert agent.heard.empty(), list(agent.heard.queue)


def test_a_boundary_is_told_in_its_phase(agent: Agent) -> None:
    with Session.open() as session:
        agent.trainer().send(FRESH)
        track(session, Run())
        step_once(session)
        session.close()
        assert agent.next(lambda message: message == Heartbeat(1, boundary=True, phase="training"))


def test_a_new_agent_hears_at_once_what_its_trainer_is_at(agent: Agent) -> None:
    with Session.open() as session:
        trainer = agent.trainer()
        trainer.send(FRESH)
        track(session, Run())
        with session.phase("evaluating"):
            agent.next_beat("evaluating")
            trainer.close()
            agent.next(lambda message: isinstance(message, Hello) and message.attempt == 1)
            assert agent.next_beat("evaluating") == Heartbeat(0, phase="evaluating")


def test_a_stage_goes_on_in_the_same_process_where_the_agent_says_so_and_anything_may_change_in_between(
    agent: Agent,
) -> None:
    with Session.open() as session:
        trainer = agent.trainer()
        trainer.send(replace(FRESH, stages=[(1, 4), (2, 1)]))
        run = Run()
        track(session, run)
        step_once(session)
        asking = threading.Thread(target=session.stage_complete, args=("first",), daemon=True)
        asking.start()
        asked = agent.next(lambda message: isinstance(message, StageComplete))
        assert asked == StageComplete(1, "first")
        trainer.send(Border(0, here=False))  # of another time
        trainer.send(Border(1, here=True))
        asking.join(PATIENCE_S)
        with torch.no_grad():
            run.model.out.weight.zero_()  # in a step's body this would be refused
        trainer.send(Save("operator", deadline=time.monotonic() + GLANCE_S))
        declined = agent.next(lambda message: isinstance(message, Declined))
        assert not declined.staged, "between two stages nothing is copied"
        step_once(session)
        staged = agent.next(lambda message: isinstance(message, Staged))
        assert (staged.step, staged.reason, staged.state["end"]) == (2, "cadence", 2), "every step, in this stage"
        session.close()


def test_a_stage_that_another_machine_goes_on_from_is_committed_and_then_the_process_ends(agent: Agent) -> None:
    """However often the agent is started anew meanwhile: it is told again."""
    with Session.open() as session:
        trainer = agent.trainer()
        trainer.send(FRESH)
        track(session, Run())
        with pytest.raises(SessionError, match="still in its loop"):
            for _ in session.steps(1):
                session.stage_complete("first")
        step_once(session)
        ended: list[object] = []

        def complete() -> None:
            try:
                session.stage_complete("first")
            except SystemExit as end:
                ended.append(end.code)

        asking = threading.Thread(target=complete, daemon=True)
        asking.start()
        agent.next(lambda message: isinstance(message, StageComplete))
        trainer.close()
        trainer = agent.trainer()
        assert agent.next(lambda message: isinstance(message, StageComplete)) == StageComplete(1, "first")
        trainer.send(Border(1, here=False))
        staged = agent.next(lambda message: isinstance(message, Staged))
        assert (staged.step, staged.reason) == (1, "border")
        assert not ended, "not before it is committed"
        trainer.send(Committed(staged.arena, staged.step))
        asking.join(PATIENCE_S)
        assert ended == [0]
    assert not any(isinstance(message, Finish) for message in agent.all)
