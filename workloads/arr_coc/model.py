"""The model: an image, a question, and as many tokens as the budget says for what the question needs of the image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.config import ArrCoc, Model
from agent.config.arr_coc import Reduction
from workloads.arr_coc.adapter import Adapter
from workloads.arr_coc.allocator import AttentionAllocator
from workloads.arr_coc.balancer import TensionBalancer
from workloads.arr_coc.cells import Cells, evenly_pooled, evenly_spread, patches
from workloads.arr_coc.scorers import ParticipatoryScorer, PerspectivalScorer, PropositionalScorer
from workloads.arr_coc.texture import texture
from workloads.errors import ModelError
from workloads.models.language import build_model
from workloads.models.vision import VisionEncoder
from workloads.stages.settings import described

PARTS = (
    "propositional_scorer",
    "perspectival_scorer",
    "participatory_scorer",
    "tension_balancer",
    "attention_allocator",
    "adapter",
)
"""What there is between the vision encoder and the language model. An ablated way has no scorer."""
RETUNED = {"budgets", "whole_steps", "efficiency_weight", "diversity_weight", "noise"}
"""Keys of the run file's model.arr_coc that may change while it trains."""


@dataclass(frozen=True)
class Relevance:
    """What an image is worth where, and why."""

    scores: dict[str, Tensor]
    """By way of knowing, those that are not ablated: [B, 32, 32] of 0 to 1."""
    map: Tensor
    """[B, 32, 32] of 0 to 1."""
    weights: Tensor
    """[B, 3]: what each of `WAYS` weighs in it."""


@dataclass(frozen=True)
class Seen:
    """What the language model is given of a batch of images."""

    tokens: Tensor
    """[B, budget, language width]."""
    detail: Tensor
    """[B, side, side]: tokens spent on each patch, 1 is full detail."""
    levels: Tensor | None
    """[B, regions] tokens of each region; None where regions have none (the reductions to compare with)."""
    relevance: Relevance | None
    """None where nothing is scored."""


class ArrCocModel(nn.Module):
    """`vision` and `language` with the six `PARTS` between them."""

    def __init__(self, vision: VisionEncoder, language: PreTrainedModel, config: ArrCoc) -> None:
        """Raises ModelError where regions or budgets don't fit the encoder's patches."""
        super().__init__()
        self.config, self.vision, self.language = config, vision, language
        self.side = vision.side
        if self.side % config.regions or config.levels[-1] > (self.side // config.regions) ** 2:
            raise ModelError(
                f"model.arr_coc: the encoder sees {self.side} x {self.side} patches, which {config.regions} x "
                f"{config.regions} regions of up to {config.levels[-1]} tokens don't fit: change regions or levels"
            )
        if max(config.budgets) > self.side**2:
            raise ModelError(
                f"model.arr_coc.budgets: {max(config.budgets)} tokens are more than {self.side**2} patches have"
            )
        query_width = language.config.hidden_size
        self.adapter = Adapter(  # first, so that one seed gives it the same weights whatever chooses the tokens
            vision_width=vision.width,
            width=config.width,
            language_width=query_width,
            layers=config.layers,
            heads=config.heads,
        )
        if config.reduction != "learned":
            return
        if "propositional" in config.names:
            self.propositional_scorer = PropositionalScorer(config.score_width)
        if "perspectival" in config.names:
            self.perspectival_scorer = PerspectivalScorer(config.score_width)
        if "participatory" in config.names:
            self.participatory_scorer = ParticipatoryScorer(config.score_width, query_width)
        self.tension_balancer = TensionBalancer(config.score_width, query_width, config.names)
        self.attention_allocator = AttentionAllocator(side=self.side, regions=config.regions, levels=config.levels)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways of knowing that score."""
        return self.config.names if self.config.reduction == "learned" else ()

    def described(self) -> dict[str, Any]:
        """What makes it the same model, by keys of the run file below `model`, as JSON."""
        parts = {"vision": described(self.vision.config), "language": described(self.language.config)}
        parts["arr_coc"] = self.config.model_dump(mode="json", exclude=RETUNED)
        return {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}

    def save(self, folder: Path) -> None:
        """Encoder and language model as Hugging Face folders, the parts between them as safetensors."""
        self.vision.model.save_pretrained(folder / "vision")
        self.language.save_pretrained(folder / "language")
        between = folder / "arr_coc"
        between.mkdir(parents=True, exist_ok=True)
        inside = {name: tensor for name, tensor in self.state_dict().items() if name.partition(".")[0] in PARTS}
        save_file({name: tensor.cpu().contiguous() for name, tensor in inside.items()}, between / "model.safetensors")
        (between / "config.json").write_text(json.dumps(self.config.model_dump(mode="json")) + "\n")

    def forward(
        self,
        pixels: Tensor,
        ids: Tensor,
        asked: Tensor,
        budget: int,
        keys: Sequence[int],
        *,
        reduction: Reduction | None = None,
    ) -> tuple[Tensor, Seen]:
        """Logits of each token of the text, [B, T, V], and what was seen.

        pixels [B, 3, S, S]; ids [B, T] the text, question and answer; asked [B, T] bool: which of it is the question;
        keys: a number for each sample, which `random` draws by; reduction: another than the configuration's.
        """
        words = self.language.get_input_embeddings()(ids)
        share = asked / asked.sum(1, keepdim=True).clamp_min(1)
        query = torch.einsum("bt,btd->bd", share, words)
        seen = self.see(pixels, query, budget, keys, reduction or self.config.reduction)
        given = torch.cat([seen.tokens.to(words.dtype), words], dim=1)
        kept = ids.shape[1] + 1
        logits = self.language(inputs_embeds=given, use_cache=False, logits_to_keep=kept).logits
        return logits[:, -kept:-1], seen

    def see(self, pixels: Tensor, query: Tensor, budget: int, keys: Sequence[int], reduction: Reduction) -> Seen:
        """An image in `budget` tokens, for a question."""
        features = self.vision(pixels).flatten(1, 2)
        if reduction != "learned":
            cells, chosen = choose(reduction, self.side, budget, keys)
            cells = Cells(cells.side, cells.boxes.to(features.device))
            chosen = chosen.to(features.device)
            gates, levels, relevance = torch.ones_like(chosen, dtype=features.dtype), None, None
        else:
            relevance = self.judge(pixels, query)
            noise = self.config.noise if self.training else 0.0
            allocation = self.attention_allocator(relevance.map, budget, noise=noise)
            cells, chosen = self.attention_allocator.cells_on(features.device), allocation.chosen
            gates, levels = allocation.gates, allocation.tokens
        in_cells = torch.einsum("cp,bpd->bcd", cells.weights(), features.float())
        tokens = in_cells.gather(1, chosen[:, :, None].expand(-1, -1, in_cells.shape[2]))
        tokens = self.adapter(tokens, cells.places()[chosen], gates, query)
        return Seen(tokens, cells.detail(chosen), levels, relevance)

    def judge(self, pixels: Tensor, query: Tensor) -> Relevance:
        """Score an image for a question, by the ways that are not ablated."""
        ground = texture(pixels)
        ways = self.config.names
        scores = {}
        if "propositional" in ways:
            scores["propositional"] = self.propositional_scorer(ground)
        if "perspectival" in ways:
            scores["perspectival"] = self.perspectival_scorer(ground)
        if "participatory" in ways:
            scores["participatory"] = self.participatory_scorer(ground, query)
        return Relevance(scores, *self.tension_balancer(scores, query))


def build(model: Model, vision: VisionEncoder, *, vocab_size: int, end_of_text: int) -> ArrCocModel:
    """All but the encoder, which is there, in fp32, on the CPU, ready to train. New weights are drawn from torch's
    generator: seed it before.

    Raises:
        ModelError: a part can't be had as the run file asks for it.
    """
    if model.language is None or model.arr_coc is None:
        raise ModelError("kind arr-coc needs model.vision, model.language and model.arr_coc in the run file")
    language = build_model(model.language, vocab_size=vocab_size, end_of_text=end_of_text, key="model.language")
    return ArrCocModel(vision, language, model.arr_coc).train()


def choose(reduction: Reduction, side: int, budget: int, keys: Sequence[int]) -> tuple[Cells, Tensor]:
    """The cells of a reduction that looks at neither image nor question, and which each sample gets, [B, budget]."""
    if reduction == "pooled":
        return evenly_pooled(side, budget), torch.arange(budget).expand(len(keys), budget)
    if reduction == "uniform":
        return patches(side), evenly_spread(side, budget).expand(len(keys), budget)
    drawn = [
        torch.randperm(side * side, generator=torch.Generator().manual_seed(key))[:budget].sort().values for key in keys
    ]
    return patches(side), torch.stack(drawn)


def beside_the_answer(seen: Seen, config: ArrCoc) -> Tensor:
    """What the parts are held to beside the answer, summed over the samples: relevance is not free (efficiency), and a
    way that scores like another adds nothing (diversity)."""
    if seen.relevance is None:
        return seen.tokens.new_zeros(())
    efficiency = seen.relevance.map.mean((1, 2)).sum()
    maps = [score.flatten(1) for score in seen.relevance.scores.values()]
    centred = [one - one.mean(1, keepdim=True) for one in maps]
    alike = seen.tokens.new_zeros(())
    for place, one in enumerate(centred):
        for other in centred[:place]:
            alike = alike + nn.functional.cosine_similarity(one, other, dim=1).square().sum()
    return config.efficiency_weight * efficiency + config.diversity_weight * alike
