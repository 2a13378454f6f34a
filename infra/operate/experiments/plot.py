"""The plot as SVG: a metric of each experiment, a ring for each seed, a bar for mean and spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from infra.operate.experiments.table import Seeds

_ROW, _TOP, _LEFT_PER_LETTER, _WIDTH, _RIGHT = 30, 52, 7.2, 460, 40
_TICKS = 4
_FONT = "font-family='Helvetica,Arial,sans-serif'"
_INK, _PALE, _MARK = "#1f2328", "#d0d7de", "#0969da"


def svg(groups: Sequence[Seeds], metric: str, *, title: str) -> str:
    """One row a group; "" where no experiment has the metric."""
    values = [value for group in groups for value in group.values(metric) if math.isfinite(value)]
    if not values:
        return ""
    spreads = [spread for group in groups if (spread := group.over_seeds(metric))]
    ends = [spread.mean + sign * (spread.sd or 0.0) for spread in spreads for sign in (-1, 1)]
    known = [each for each in (*values, *ends) if math.isfinite(each)]
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    left = 20 + _LEFT_PER_LETTER * max(len(group.label) for group in groups)
    bottom = _TOP + _ROW * len(groups)

    def across(value: float) -> float:
        return left + _WIDTH * (value - low) / (high - low)

    width, height = left + _WIDTH + _RIGHT, bottom + 34
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' role='img' aria-label='{escape(title, quote=True)}'>",
        "<rect width='100%' height='100%' fill='white'/>",
        _text(20, 24, title, size=15, weight="bold"),
        _text(left, 42, metric, size=12),
    ]
    for number in range(_TICKS + 1):
        value = low + (high - low) * number / _TICKS
        out.append(_path(across(value), _TOP, across(value), bottom, _PALE))
        out.append(_text(across(value), bottom + 18, f"{value:.4g}", size=11, anchor="middle"))
    for place, group in enumerate(groups):
        y = _TOP + _ROW * (place + 0.5)
        out.append(_text(left - 10, y + 4, group.label, size=12, anchor="end"))
        spread = group.over_seeds(metric)
        if spread is None or not math.isfinite(spread.mean):
            out.append(_text(left + 8, y + 4, "not done" if spread is None else f"{spread.mean}", size=11))
            continue
        if spread.sd:
            out.append(_path(across(spread.mean - spread.sd), y, across(spread.mean + spread.sd), y, _MARK, wide=3))
        out.append(_path(across(spread.mean), y - 9, across(spread.mean), y + 9, _MARK, wide=3))
        out += [_ring(across(value), y) for value in group.values(metric) if math.isfinite(value)]
    return "\n".join([*out, "</svg>", ""])


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' "
        f"fill='{_INK}'>{escape(text)}</text>"
    )


def _path(x: float, y: float, to_x: float, to_y: float, colour: str, *, wide: int = 1) -> str:
    return f"<path d='M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}' stroke='{colour}' stroke-width='{wide}'/>"


def _ring(x: float, y: float) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='white' stroke='{_MARK}' stroke-width='1.5'/>"
