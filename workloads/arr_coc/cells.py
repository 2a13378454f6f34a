"""Cells: boxes over a grid of patches, each of which becomes one token. A choice of cells is what an image costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Boxes that a token may be made of, over a grid of side x side patches."""

    side: int
    boxes: Tensor
    """[C, 4] int64: top, left, bottom, right in patches; bottom and right are the first that are outside."""

    def weights(self) -> Tensor:
        """[C, side * side]: by which the features of the patches are averaged into a cell."""
        inside = self._inside().float()
        return inside / inside.sum(1, keepdim=True)

    def places(self) -> Tensor:
        """[C, 3]: the middle's y and x, and the cell's side, as shares of the image's side."""
        top, left, bottom, right = (self.boxes.float() / self.side).unbind(1)
        return torch.stack([(top + bottom) / 2, (left + right) / 2, ((bottom - top) * (right - left)).sqrt()], dim=1)

    def detail(self, chosen: Tensor) -> Tensor:
        """Cells that were chosen, [B, k] -> tokens spent on each patch, [B, side, side]: 1 is full detail."""
        return self.weights()[chosen].sum(1).view(-1, self.side, self.side)

    def _inside(self) -> Tensor:
        rows = torch.arange(self.side, device=self.boxes.device)
        top, left, bottom, right = self.boxes[:, :, None].unbind(1)
        in_rows, in_columns = (rows >= top) & (rows < bottom), (rows >= left) & (rows < right)
        return (in_rows[:, :, None] & in_columns[:, None]).flatten(1)


def cut(height: int, width: int, rows: int, columns: int, *, top: int = 0, left: int = 0) -> list[list[int]]:
    """A box cut into rows x columns as even as they come, row by row."""
    ys = [top + height * row // rows for row in range(rows + 1)]
    xs = [left + width * column // columns for column in range(columns + 1)]
    return [[ys[y], xs[x], ys[y + 1], xs[x + 1]] for y in range(rows) for x in range(columns)]


def patches(side: int) -> Cells:
    """Each patch by itself."""
    return Cells(side, torch.tensor(cut(side, side, side, side)))


def evenly_pooled(side: int, count: int) -> Cells:
    """The whole grid in exactly `count` cells that are as alike, and as square, as they come: average pooling."""
    rows = max(1, min(side, round(math.sqrt(count))))
    ys = [side * row // rows for row in range(rows + 1)]
    in_row = [count * (row + 1) // rows - count * row // rows for row in range(rows)]
    boxes = [
        box
        for row, columns in enumerate(in_row)
        for box in cut(ys[row + 1] - ys[row], side, 1, columns, top=ys[row])
    ]  # fmt: skip
    return Cells(side, torch.tensor(boxes))


def evenly_spread(side: int, count: int) -> Tensor:
    """[count]: the patches in the middles of `evenly_pooled`'s cells: a uniform grid of single patches."""
    boxes = evenly_pooled(side, count).boxes
    middles = (boxes[:, :2] + boxes[:, 2:]) // 2
    return (middles[:, 0] * side + middles[:, 1]).clamp(max=side * side - 1)


def overlap(detail: Tensor, region: Tensor, side: int) -> Tensor:
    """How far the detail lies where the question asks, [B]: the sum of the lesser over the sum of the greater at each
    patch (IoU of two maps that have shares). `detail` [B, side, side], `region` [B, 4] x0, y0, x1, y1 of 0 to 1."""
    asked = covered(region, side)
    lesser, greater = torch.minimum(detail, asked).sum((1, 2)), torch.maximum(detail, asked).sum((1, 2))
    return lesser / greater.clamp_min(1e-6)


def covered(region: Tensor, side: int) -> Tensor:
    """The share of each patch that a region covers: [B, 4] x0, y0, x1, y1 -> [B, side, side]."""
    x0, y0, x1, y1 = (region.float() * side)[:, :, None].unbind(1)
    at = torch.arange(side, device=region.device)[None]
    along_x = (torch.minimum(x1, at + 1) - torch.maximum(x0, at)).clamp(0, 1)
    along_y = (torch.minimum(y1, at + 1) - torch.maximum(y0, at)).clamp(0, 1)
    return along_y[:, :, None] * along_x[:, None]
