"""The smallest parts, and rows for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agent.config import Model
from tests.llm.conftest import GEMMA2, QWEN3
from workloads.models.vision import IMAGE_TOKEN
from workloads.vlm.model import VisionLanguageModel, build

SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}
OVIS: dict[str, Any] = {"kind": "ovis", "visual_words": 32}
MLP: dict[str, Any] = {"kind": "mlp"}
LANGUAGES = {"qwen3": QWEN3, "gemma2": GEMMA2 | {"sliding_window": 4}}


def model_of(language: str = "qwen3", connector: dict[str, Any] | None = None) -> Model:
    """As a run file gives it."""
    return Model.model_validate(
        {
            "vision": {"config": SIGLIP},
            "language": {"config": LANGUAGES[language]},
            "connector": connector or OVIS,
        }
    )


def tiny(language: str = "qwen3", connector: dict[str, Any] | None = None) -> VisionLanguageModel:
    torch.manual_seed(0)
    return build(model_of(language, connector), vocab_size=50, end_of_text=0)


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


def row(model: VisionLanguageModel, *parts: int | str) -> list[int]:
    """Tokens of a sample: numbers are text, "image" is one."""
    image = [IMAGE_TOKEN] * model.tokens_per_image
    return [token for part in parts for token in (image if part == "image" else [int(part)])]


def packed(*rows: list[list[int]], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids, positions and segments, [rows, length] each, of samples in rows."""
    ids, positions, segments = (torch.zeros(len(rows), length, dtype=torch.int64) for _ in range(3))
    for number, samples in enumerate(rows):
        at = 0
        for segment, tokens in enumerate(samples, 1):
            span = slice(at, at + len(tokens))
            ids[number, span] = torch.tensor(tokens)
            positions[number, span] = torch.arange(len(tokens))
            segments[number, span] = segment
            at = span.stop
    return ids, positions, segments
