"""The vision encoder: SigLIP or SigLIP 2 by Hugging Face name, from a folder, or new from a configuration."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import AutoConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from agent.config import Vision
from workloads.errors import ModelError
from workloads.models.configuration import configure, first_line

disable_progress_bar()  # a bar is for a terminal; this goes to a journal

IMAGE_TOKEN = 2**32 - 1
"""Stands in the ids where an image's features are put. No tokenizer has it, so that no text can be taken for one; and
it fits into the four bytes of an id in the tables of samples."""

_FAMILY = ("siglip", "siglip_vision_model")


class VisionEncoder(nn.Module):
    """Images to patches. `model` is transformers' SiglipVisionModel, without the head that pools them: it is not used
    here, and would be declared as trained without ever changing."""

    def __init__(self, model: SiglipVisionModel) -> None:
        super().__init__()
        self.model = model
        self.config: SiglipVisionConfig = model.config
        self.image_size = int(self.config.image_size)
        """Pixels of a side, S."""
        self.side = self.image_size // int(self.config.patch_size)
        """Patches of a side."""
        self.width = int(self.config.hidden_size)
        """Of a patch's features, d."""

    def forward(self, pixels: Tensor) -> Tensor:
        """[images, 3, S, S] to [images, side, side, d]."""
        patches: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return patches.reshape(len(pixels), self.side, self.side, self.width)


def build_vision(vision: Vision, *, key: str = "model.vision") -> VisionEncoder:
    """The encoder in fp32, on the CPU, ready to train. New weights are drawn from torch's generator: seed it before.

    Raises:
        ModelError: the name can't be loaded, or the configuration is none of the family.
    """
    if vision.name is not None:
        model = _load(vision.name, key)
    else:
        config = configure(vision.config or {}, {"vision_use_head": False}, key=f"{key}.config")
        _must_be_of_the_family(config.model_type, key)
        model = SiglipVisionModel(config)
    encoder = VisionEncoder(model.float())
    if encoder.image_size % int(encoder.config.patch_size) and vision.name is None:
        raise ModelError(
            f"{key}.config.image_size {encoder.image_size} is not a multiple of its patch_size, "
            f"{encoder.config.patch_size}: change one"
        )
    return encoder.train()


def _load(name: str, key: str) -> SiglipVisionModel:
    try:
        _must_be_of_the_family(AutoConfig.from_pretrained(name).model_type, key)
        with _quiet():
            model, info = SiglipVisionModel.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, vision_use_head=False, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"can't load the vision encoder {name!r}: download it while there is a network, name a folder that has it, "
            f"or give {key}.config to train a new one ({first_line(error)})"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{key}: {name!r} lacks {missing[0]} ({len(missing)} tensors in all), which would start from random "
            f"weights: name one that is whole"
        )
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers tells each tensor of a whole SigLIP that an encoder has no use for; what is missing, we tell."""
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)


def _must_be_of_the_family(model_type: str, key: str) -> None:
    if model_type not in _FAMILY:
        raise ModelError(
            f"{key} is a {model_type}, and no encoder of the SigLIP family: write google/siglip-so400m-patch14-384, "
            f"google/siglip2-base-patch16-224, or config: {{model_type: siglip_vision_model, ...}}"
        )
