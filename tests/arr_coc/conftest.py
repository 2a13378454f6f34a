from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agent.config import Model
from workloads.arr_coc.model import ArrCocModel, build
from workloads.models.vision import build_vision

VISION = {
    "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 4, "hidden_size": 24, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
LANGUAGE = {
    "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True,
}  # fmt: skip
TINY = {"budgets": [7], "width": 16, "heads": 2, "score_width": 8}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def make_model(seed: int = 0, **changes: Any) -> ArrCocModel:
    """64 patches, 16 regions."""
    torch.manual_seed(seed)
    model = Model.model_validate(
        {"vision": {"config": VISION}, "language": {"config": LANGUAGE}, "arr_coc": TINY | changes}
    )
    assert model.vision is not None
    return build(model, build_vision(model.vision), vocab_size=50, end_of_text=0)


def draw_inputs(batch: int) -> dict[str, Any]:
    """Images with smooth parts and edges, a text of 9 tokens of which 6 ask; one generator for each sample."""
    drawn = []
    for number in range(batch):
        source = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, 4, 4, generator=source) * 2 - 1
        fine = torch.rand(3, 32, 32, generator=source) * 0.3
        image = (torch.nn.functional.interpolate(coarse, 32, mode="nearest")[0] + fine).clamp(-1, 1)
        drawn.append((image, torch.randint(0, 50, (9,), generator=source)))
    asked = torch.zeros(batch, 9, dtype=torch.bool)
    asked[:, :6] = True
    return {
        "pixels": torch.stack([image for image, _ in drawn]),
        "ids": torch.stack([ids for _, ids in drawn]),
        "asked": asked,
        "keys": range(batch),
    }
