import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spot_training.protocol.messages import Committed, Finish, Finished, Heartbeat, Staged
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent.config import RunConfig
from tests.llm.conftest import GEMMA2, QWEN3, make_data, make_run
from tests.spot_training.agent import FRESH, PATIENCE_S, Agent
from workloads.errors import DataError
from workloads.llm.data import IGNORED, Batches, split_rows
from workloads.llm.optimizer import make_optimizer
from workloads.llm.tokens import tokenise
from workloads.llm.train import train
from workloads.models.language import build_model
from workloads.stages.schedule import make_scheduler


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def metrics_of(run: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """Train to the end without an agent; what was logged."""
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    train(run)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in metrics]


@pytest.mark.parametrize(("config", "dtype"), [(QWEN3, "fp32"), (QWEN3, "bf16"), (GEMMA2, "fp32")])
def test_tiny_model_learns(config: dict[str, Any], dtype: str, state: Path) -> None:
    run = make_run(
        model={"config": config},
        data=make_data(),
        max_steps=25,
        global_batch=8,
        micro_batch=8,
        dtype=dtype,
        eval_every=24,
    )

    metrics = metrics_of(run, state)

    assert losses(metrics)[0] == pytest.approx(torch.tensor(300.0).log().item(), abs=0.6)  # knows nothing yet
    assert losses(metrics)[-1] < losses(metrics)[0] - 1
    assert metrics[24]["eval_loss"] < metrics[0]["eval_loss"] - 1
    assert [line["step"] for line in metrics] == list(range(25))


def test_same_run_twice_gives_the_same_losses_and_weights_to_the_bit(state: Path) -> None:
    run = make_run(model={"config": QWEN3}, data=make_data(), max_steps=5, global_batch=4, micro_batch=2, eval_every=2)

    first, weights = losses(metrics_of(run, state)), load_file(state / "result" / "model.safetensors")
    second, again = losses(metrics_of(run, state)), load_file(state / "result" / "model.safetensors")

    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_finished_model_is_evaluated_and_says_so_beside_its_weights(state: Path) -> None:
    run = make_run(model={"config": QWEN3}, data=make_data(), max_steps=4, global_batch=4, micro_batch=4, eval_every=3)
    metrics = metrics_of(run, state)

    final = json.loads((state / "result" / "eval.json").read_text())

    assert final["step"] == 4
    assert metrics[3]["eval_loss"] - 1 < final["eval_loss"] < metrics[3]["eval_loss"]  # one update later


def test_evaluating_changes_nothing_in_the_training(state: Path) -> None:
    """With dropout: evaluation draws no random number, and the model is back in training mode afterwards."""
    model = {"config": QWEN3 | {"attention_dropout": 0.2}}
    given: dict[str, Any] = {"model": model, "data": make_data(), "max_steps": 4, "global_batch": 4, "micro_batch": 2}
    assert losses(metrics_of(make_run(**given, eval_every=1), state)) == losses(metrics_of(make_run(**given), state))


def test_evaluating_is_a_phase_of_its_own_with_a_limit_of_its_own(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOT_AGENT_SOCKET", str(tmp_path / "agent.sock"))
    agent = Agent(tmp_path / "agent.sock")
    run = make_run(model={"config": QWEN3}, data=make_data(), max_steps=1, global_batch=2, micro_batch=2, eval_every=1)
    trainer = threading.Thread(target=train, args=(run,))
    trainer.start()
    connection = agent.trainer()
    connection.send(FRESH)
    staged = agent.next(lambda message: isinstance(message, Staged) and message.reason == "final")
    connection.send(Committed(staged.arena, staged.step))
    agent.next(lambda message: isinstance(message, Finish))
    connection.send(Finished())
    trainer.join(PATIENCE_S)
    agent.close()

    phases = [message.phase for message in agent.all if isinstance(message, Heartbeat)]
    assert phases.index("training") < phases.index("evaluating")
    assert "training" in phases[phases.index("evaluating") :]
    assert not trainer.is_alive()


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(state: Path) -> None:
    given: dict[str, Any] = {"model": {"config": QWEN3}, "data": make_data(), "max_steps": 2, "global_batch": 2}
    full = losses(metrics_of(make_run(**given, micro_batch=2), state))
    half = losses(metrics_of(make_run(**given, micro_batch=2, dtype="bf16"), state))

    assert half != full
    assert half == pytest.approx(full, rel=0.01)
    assert {tensor.dtype for tensor in load_file(state / "result" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 8])
def test_losses_are_those_of_a_plain_loop_over_whole_batches(micro_batch: int, state: Path) -> None:
    """However the batch is cut. The data's last row is short, which a mean of means would weigh wrongly."""
    data = make_data(include=["json/tool.py"], sequence_length=200, eval_fraction=0.0)
    run = make_run(
        model={"config": QWEN3},
        data=data,
        max_steps=4,
        global_batch=8,
        micro_batch=micro_batch,
        learning_rate=1e-3,
        schedule="constant",
    )
    text = tokenise(data)
    rows, _ = split_rows(text.tokens, 200, 0.0)
    batches = Batches(rows, seed=0, fingerprint={}, global_batch=8, micro_batch=8)
    torch.manual_seed(run.training.seed)
    assert run.model is not None
    model = build_model(run.model, vocab_size=300, end_of_text=0)
    optimizer = make_optimizer(model, run.training)
    expected, norms = [], []
    for _ in range(4):
        ((inputs, targets),) = next(batches).micro_batches
        loss = cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        expected.append(loss.item())

    metrics = metrics_of(run, state)

    assert len(rows) < 4 * 8  # the short row came up
    assert losses(metrics) == pytest.approx(expected, rel=1e-5)
    assert [line["gradient_norm"] for line in metrics] == pytest.approx(norms, rel=1e-4)


def test_result_is_a_model_and_its_tokenizer_that_transformers_loads(state: Path) -> None:
    run = make_run(model={"config": QWEN3}, data=make_data(), max_steps=1, global_batch=2, micro_batch=2)
    train(run)

    model = AutoModelForCausalLM.from_pretrained(state / "result")
    tokenizer = AutoTokenizer.from_pretrained(state / "result")

    assert model.config.vocab_size == len(tokenizer) == 300
    assert tokenizer.decode(tokenizer("def loads(s):")["input_ids"]) == "def loads(s):"


def test_saved_result_is_trained_on_by_its_name(state: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"max_steps": 20, "global_batch": 8, "micro_batch": 8}
    first = losses(metrics_of(make_run(model={"config": QWEN3}, data=make_data(), **given), state))
    (state / "result").rename(tmp_path / "first")

    run = make_run(model={"name": str(tmp_path / "first")}, data=make_data(tokenizer=None), **given)

    assert losses(metrics_of(run, state))[0] < first[0] - 0.5


def test_weight_decay_is_on_matrices_only() -> None:
    run = make_run(model={"config": QWEN3}, data=make_data(), weight_decay=0.3)
    assert run.model is not None
    model = build_model(run.model, vocab_size=300, end_of_text=0)
    decay = {id(p): g["weight_decay"] for g in make_optimizer(model, run.training).param_groups for p in g["params"]}
    for name, param in model.named_parameters():
        assert decay[id(param)] == (0.0 if "norm" in name else 0.3), name


def test_learning_rate_follows_the_schedule(state: Path) -> None:
    run = make_run(
        model={"config": QWEN3},
        data=make_data(),
        max_steps=4,
        global_batch=2,
        micro_batch=2,
        warmup_steps=2,
        learning_rate=0.01,
        schedule="wsd",
        min_learning_rate_ratio=0.5,
    )
    assert [line["learning_rate"] for line in metrics_of(run, state)] == pytest.approx([0.005, 0.01, 0.01, 0.01])


def test_scheduler_state_is_json_and_goes_on() -> None:
    run = make_run(model={"config": QWEN3}, data=make_data(), max_steps=10, warmup_steps=3)
    params = torch.nn.Linear(2, 2)
    optimizers = [make_optimizer(params, run.training) for _ in range(2)]
    one, two = (make_scheduler(optimizer, run.training) for optimizer in optimizers)
    for _ in range(5):
        optimizers[0].step()
        one.step()

    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for optimizer, scheduler in zip(optimizers, (one, two), strict=True):
        optimizer.step()
        scheduler.step()

    assert two.get_last_lr() == one.get_last_lr()


def test_several_ranks_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their gradients would not be put together."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="runs as one process"):
        train(make_run(model={"config": QWEN3}, data=make_data()))
