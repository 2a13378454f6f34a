"""The connector: an encoder's patches to tokens of the language model, the Ovis way or by a projection."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from agent.config import Connector

OVIS_WORDS = 65536
INDICATORS = 2
"""Rows of the visual embedding table that stand before and behind an image, as words do."""


def merge_patches(patches: Tensor, merge: int) -> Tensor:
    """[images, side, side, d] to [images, places, merge * merge * d]: squares of patches become one place. A side that
    is no multiple gets patches of zeros (SigLIP's 27 becomes 28)."""
    over = -patches.shape[1] % merge
    patches = pad(patches, (0, 0, 0, over, 0, over))
    images, side, _, width = patches.shape
    squares = patches.reshape(images, side // merge, merge, side // merge, merge, width)
    return squares.transpose(2, 3).reshape(images, (side // merge) ** 2, merge * merge * width)


class OvisConnector(nn.Module):
    """Each place is a mixture of visual words: a head gives their weights, the visual embedding table their meaning.

    From Ovis2.5: `head` is Linear(merge * merge * d, V - 2) and LayerNorm, `table` is Embedding(V, D); two rows of the
    table stand at the image's beginning and end.
    """

    def __init__(self, *, side: int, width: int, embedding: int, merge: int, words: int) -> None:
        super().__init__()
        self.merge = merge
        self.tokens_per_image = _places(side, merge) + INDICATORS
        self.head = nn.Sequential(
            nn.Linear(merge * merge * width, words - INDICATORS, bias=False), nn.LayerNorm(words - INDICATORS)
        )
        self.table = nn.Embedding(words, embedding)

    def described(self) -> dict[str, str | int]:
        """As in the run file."""
        return {"kind": "ovis", "merge": self.merge, "visual_words": self.table.num_embeddings}

    def forward(self, patches: Tensor) -> Tensor:
        """[images, side, side, d] to [images, tokens_per_image, D]."""
        logits = self.head(merge_patches(patches, self.merge))
        weights = torch.softmax(logits.float(), dim=-1)  # of thousands of words: bf16 would lose most of them
        table = self.table.weight
        places = weights.to(table.dtype) @ table[:-INDICATORS]
        begin, end = (row.expand(len(patches), 1, -1) for row in table[-INDICATORS:])
        return torch.cat([begin.to(places.dtype), places, end.to(places.dtype)], dim=1)


class MlpConnector(nn.Module):
    """Each place is projected: Linear, GELU, Linear. LLaVA's with merge 1, nanoVLM's pixel shuffle with 2 and more."""

    def __init__(self, *, side: int, width: int, embedding: int, merge: int) -> None:
        super().__init__()
        self.merge = merge
        self.tokens_per_image = _places(side, merge)
        self.projection = nn.Sequential(
            nn.Linear(merge * merge * width, embedding), nn.GELU(), nn.Linear(embedding, embedding)
        )

    def described(self) -> dict[str, str | int]:
        """As in the run file."""
        return {"kind": "mlp", "merge": self.merge}

    def forward(self, patches: Tensor) -> Tensor:
        """[images, side, side, d] to [images, tokens_per_image, D]."""
        projected: Tensor = self.projection(merge_patches(patches, self.merge))
        return projected


def build_connector(connector: Connector, *, side: int, width: int, embedding: int) -> OvisConnector | MlpConnector:
    """A new one for an encoder of `side` x `side` patches of `width`, and a language model's `embedding` width. Its
    weights are drawn from torch's generator: seed it before."""
    if connector.kind == "mlp":
        return MlpConnector(side=side, width=width, embedding=embedding, merge=connector.merge)
    words = connector.visual_words or OVIS_WORDS
    return OvisConnector(side=side, width=width, embedding=embedding, merge=connector.merge, words=words)


def _places(side: int, merge: int) -> int:
    return ((side + merge - 1) // merge) ** 2
