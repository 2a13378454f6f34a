from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.config import Data, RunConfig

QWEN3 = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
GEMMA2 = {**QWEN3, "model_type": "gemma2", "query_pre_attn_scalar": 16, "sliding_window": 16}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test tokenises for itself, and finds nothing on the Hugging Face hub."""
    for variable in ("SPOT_AGENT_SOCKET", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SPOT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def make_data(**changes: Any) -> Data:
    """300 KB of the standard library, or less."""
    given = {
        "source": "stdlib",
        "include": ["json/*.py"],
        "tokenizer": {"train_vocab_size": 300},
        "sequence_length": 32,
        "eval_fraction": 0.05,
    }
    return Data.model_validate(given | changes)


def make_run(*, model: dict[str, Any], data: Data, **training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run_id": "test",
            "model": model,
            "data": data.model_dump(exclude_none=True),
            "training": {"dtype": "fp32", "warmup_steps": 0, "learning_rate": 1e-2, "eval_every": None, **training},
            "checkpoint": {"bucket": "file:///nowhere", "every": "1 steps"},
        }
    )
