"""A language model that sees: a vision encoder, a connector, and any causal language model through `inputs_embeds`."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.config import Connector, Model
from workloads.errors import ModelError
from workloads.models.connector import MlpConnector, OvisConnector, build_connector
from workloads.models.language import build_model
from workloads.models.vision import IMAGE_TOKEN, VisionEncoder, build_vision
from workloads.stages import settings


class VisionLanguageModel(nn.Module):
    """Its parts go by the names `vision`, `connector` and `language`, in stages and in checkpoints too."""

    def __init__(
        self, vision: VisionEncoder, connector: OvisConnector | MlpConnector, language: PreTrainedModel
    ) -> None:
        super().__init__()
        self.vision = vision
        self.connector = connector
        self.language = language

    @property
    def tokens_per_image(self) -> int:
        """Places that an image takes in a row."""
        return self.connector.tokens_per_image

    def forward(self, pixels: Tensor, ids: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """The logits of each place, [rows, L, vocabulary].

        `pixels` are all images of all rows, [images, 3, S, S]; `ids` [rows, L] has `tokens_per_image` times IMAGE_TOKEN
        for each, in the same order. `positions` [rows, L] begins at 0 in each sample of a row, and `segments` [rows, L]
        says which it is (0: padding): a place sees only what is before it in its own sample.

        Raises:
            ModelError: there are places for more images, or for fewer.
        """
        places = ids == IMAGE_TOKEN
        embedded = self.language.get_input_embeddings()(ids.masked_fill(places, 0))
        features = self.look(pixels)
        if len(pixels):
            if int(places.sum()) != features.shape[0] * features.shape[1]:
                raise ModelError(
                    f"{int(places.sum())} places for images in the rows, and {len(pixels)} images of "
                    f"{self.tokens_per_image} each"
                )
            embedded = embedded.clone()
            embedded[places] = features.flatten(0, 1).to(embedded.dtype)
        elif bool(places.any()):
            raise ModelError(f"{int(places.sum())} places for images in the rows, and no image")
        else:  # a batch of text: encoder and connector have gradients all the same, of zero, on every rank
            embedded = embedded + features.sum() * 0.0
        # transformers sees by the positions where a sample begins, for every architecture and kind of attention. A
        # padding place is a sample of its own.
        positions = positions.masked_fill(segments == 0, 0)
        output = self.language(inputs_embeds=embedded, position_ids=positions, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def look(self, pixels: Tensor) -> Tensor:
        """Images to tokens, [images, tokens_per_image, D]; without an image, those of a dummy."""
        if not len(pixels):
            size = self.vision.image_size
            pixels = torch.zeros(1, 3, size, size, device=pixels.device, dtype=pixels.dtype)
        tokens: Tensor = self.connector(self.vision(pixels))
        return tokens

    def save(self, folder: Path) -> None:
        """Encoder and language model as Hugging Face folders, the connector as safetensors."""
        self.vision.model.save_pretrained(folder / "vision")
        self.language.save_pretrained(folder / "language")
        (folder / "connector").mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.connector.state_dict().items()}
        save_file(state, folder / "connector" / "model.safetensors")
        (folder / "connector" / "config.json").write_text(json.dumps(self.connector.described()) + "\n")


def described(model: VisionLanguageModel) -> dict[str, Any]:
    """What makes it the same model, as JSON, by its keys in the run file."""
    vision = settings.described(model.vision.config)
    language = settings.described(model.language.config)
    return (
        {f"vision.config.{key}": value for key, value in vision.items()}
        | {f"language.config.{key}": value for key, value in language.items()}
        | {f"connector.{key}": value for key, value in model.connector.described().items()}
    )


def build(model: Model, *, vocab_size: int, end_of_text: int) -> VisionLanguageModel:
    """The whole in fp32, on the CPU, ready to train. New weights are drawn from torch's generator: seed it before.

    Raises:
        ModelError: a part can't be had as the run file asks for it.
    """
    if model.vision is None or model.language is None:
        raise ModelError("a model that sees needs model.vision and model.language in the run file")
    vision = build_vision(model.vision)
    language = build_model(model.language, vocab_size=vocab_size, end_of_text=end_of_text, key="model.language")
    connector = build_connector(
        model.connector or Connector(),
        side=vision.side,
        width=vision.width,
        embedding=language.get_input_embeddings().embedding_dim,
    )
    return VisionLanguageModel(vision, connector, language).train()
