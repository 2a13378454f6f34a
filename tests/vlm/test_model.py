"""The model: its parts, its places for images, and rows with several samples in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, SiglipConfig, SiglipModel, SiglipVisionModel

from agent.config import Model, Vision
from tests.vlm.parts import LANGUAGES, MLP, OVIS, SIGLIP, images, model_of, packed, row, tiny
from workloads.errors import ModelError
from workloads.models.connector import merge_patches
from workloads.models.vision import build_vision
from workloads.vlm.model import build

BOTH = pytest.mark.parametrize(("language", "connector"), [("qwen3", OVIS), ("gemma2", OVIS), ("qwen3", MLP)])


@BOTH
def test_a_packed_sample_is_answered_as_if_it_were_alone(language: str, connector: dict[str, Any]) -> None:
    """Two images in one sample, text alone in the next, an image in a third; and padding behind."""
    model = tiny(language, connector).eval()
    samples = [row(model, 5, "image", 6, "image", 7), row(model, 8, 9, 10, 11, 12), row(model, "image", 13)]
    pixels = images(3)
    length = sum(map(len, samples)) + 3
    together = model(pixels, *packed(samples, [row(model, 3, 4)], length=length))

    at = 0
    for tokens, seen in zip(samples, (pixels[:2], pixels[:0], pixels[2:]), strict=True):
        alone = model(seen, *packed([tokens], length=len(tokens)))
        assert_close(together[0, at : at + len(tokens)], alone[0], rtol=0, atol=2e-6)
        at += len(tokens)


@BOTH
def test_every_image_is_seen_at_its_own_place_and_by_what_follows(language: str, connector: dict[str, Any]) -> None:
    model = tiny(language, connector).eval()
    rows = packed([row(model, 5, "image", 6, "image", 7)], length=2 * model.tokens_per_image + 3)
    one, two = images(2), images(2)
    two[1] += 1
    differs = (model(one, *rows) != model(two, *rows)).any(-1)[0]
    second = model.tokens_per_image + 2
    assert not differs[:second].any()
    assert differs[second:].all() or connector == OVIS  # a table's first row is the same for each image
    assert differs[-1]


@BOTH
def test_rows_of_text_alone_give_the_language_models_own_answer_and_gradients_to_all(
    language: str, connector: dict[str, Any]
) -> None:
    """A rank that sees no image has the same parameters to reduce, and an optimizer knows them all (EasyR1#275)."""
    model = tiny(language, connector)
    rows = packed([[1, 2, 3]], length=3)
    logits = model(images(0), *rows)
    assert torch.equal(logits, model.language(input_ids=rows[0]).logits)
    logits.sum().backward()
    assert [name for name, param in model.named_parameters() if param.grad is None] == []
    assert not any(param.grad.any() for param in model.vision.parameters() if param.grad is not None)


@BOTH
def test_every_parameter_learns_from_an_image(language: str, connector: dict[str, Any]) -> None:
    model = tiny(language, connector)
    logits = model(images(1), *packed([row(model, 1, "image", 2)], length=model.tokens_per_image + 2))
    (logits.square().sum()).backward()
    idle = {name for name, param in model.named_parameters() if param.grad is None or not param.grad.any()}
    assert idle == {name for name in idle if name.endswith("k_proj.bias")}, "a softmax does not see what all keys share"


def test_places_and_images_must_be_as_many() -> None:
    model = tiny()
    with pytest.raises(ModelError, match=r"12 places for images in the rows, and 1 images of 6 each"):
        model(images(1), *packed([row(model, "image", "image")], length=12))
    with pytest.raises(ModelError, match="6 places for images in the rows, and no image"):
        model(images(0), *packed([row(model, "image")], length=6))


def test_squares_of_patches_become_one_place_and_an_odd_side_gets_zeros() -> None:
    patches = torch.arange(1.0, 10).reshape(1, 3, 3, 1)
    assert merge_patches(patches, 2).tolist() == [[[1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0]]]
    assert merge_patches(patches, 1).tolist() == [[[number] for number in range(1, 10)]]
    assert (tiny().tokens_per_image, tiny(connector=MLP | {"merge": 1}).tokens_per_image) == (4 + 2, 9)


def test_the_parts_are_saved_as_others_load_them_and_trained_on_by_their_folders(tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "language").config.vocab_size == 50
    assert SiglipVisionModel.from_pretrained(tmp_path / "vision", vision_use_head=False).config.hidden_size == 32
    given = {"vision": {"name": str(tmp_path / "vision")}, "language": {"name": str(tmp_path / "language")}}
    again = build(Model.model_validate(given | {"connector": OVIS}), vocab_size=50, end_of_text=0)
    for part in ("vision", "language"):
        state = getattr(again, part).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in getattr(model, part).state_dict().items())
    assert again.training


def test_the_encoder_is_taken_out_of_a_whole_siglip_and_not_where_a_part_of_it_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As google/siglip-so400m-patch14-384 is published: with its text model and its head."""
    text = {key: value for key, value in SIGLIP.items() if not key.endswith("size")}
    parts = {name: {key: value for key, value in config.items() if key != "model_type"}
             for name, config in (("vision_config", SIGLIP), ("text_config", text | {"hidden_size": 32}))}  # fmt: skip
    whole = SiglipModel(SiglipConfig(**parts))
    whole.save_pretrained(tmp_path)
    state = build_vision(Vision(name=str(tmp_path))).model.state_dict()
    theirs = whole.vision_model.state_dict()
    assert state.keys() == {name for name in theirs if not name.startswith("head.")}
    assert all(torch.equal(theirs[name], value) for name, value in state.items())
    assert "UNEXPECTED" not in capfd.readouterr().err

    kept = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in kept.items() if "fc1" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks .*fc1.bias \(2 tensors in all\), which would start from random"):
        build_vision(Vision(name=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SIGLIP | {"hiden_size": 1}, r"model\.vision\.config has 'hiden_size'.*did you mean hidden_size"),
        (LANGUAGES["qwen3"], r"model\.vision is a qwen3, and no encoder of the SigLIP family"),
        (SIGLIP | {"image_size": 25}, r"image_size 25 is not a multiple of its patch_size, 8"),
    ],
)
def test_what_is_no_encoder_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build_vision(Vision(config=config))


def test_same_seed_gives_the_same_weights() -> None:
    one, two = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert model_of().sees
