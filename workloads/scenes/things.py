"""The things that scenes are composed of, and the pictures of them in each package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from workloads.scenes.compose import Thing

LARGEST = 96
"""Pixels: a look is shrunk to it once, so that a scene is composed in a millisecond."""

GROUPS = {
    "birds": ("owl", "flamingo"),
    "mammals": ("bison", "zebra"),
    "fruits": ("apple", "banana"),
    "vehicles": ("bus", "boat"),
}
"""Few, so that a model without any pre-training knows them after some thousand pictures."""

STAMP_FILES = {
    "owl": ("animals/birds/owl",),
    "flamingo": ("animals/birds/pink_flamingo",),
    "bison": ("animals/mammals/bovines/bison",),
    "zebra": ("animals/mammals/equines/zebra",),
    "apple": ("food/fruit/apple_red", "food/fruit/cartoon/apple"),
    "banana": ("food/fruit/banana", "food/fruit/cartoon/banana"),
    "bus": ("vehicles/masstransit/cartoon/double_decker_bus",),
    "boat": ("vehicles/ship/cartoon/tugboat",),
}
"""Of Debian's tuxpaint-stamps-default. Each has a caption beside it that says the name."""

EMOJI_FILES = {
    "owl": ("1f989",),
    "flamingo": ("1f9a9",),
    "bison": ("1f9ac",),
    "zebra": ("1f993",),
    "apple": ("1f34e", "1f34f"),
    "banana": ("1f34c",),
    "bus": ("1f68c",),
    "boat": ("26f5",),
}
"""Of npm's emoji-datasource-google, by code point."""


def load_things(folder: Path, files: Mapping[str, tuple[str, ...]] = STAMP_FILES) -> list[Thing]:
    """The things in an unpacked package. Raises OSError where a picture is missing or broken."""
    return [
        Thing(name, group, tuple(_look(folder / f"{file}.png") for file in files[name]))
        for group, names in GROUPS.items()
        for name in names
    ]


def _look(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        look = opened.convert("RGBA")
    look = look.crop(look.getchannel("A").getbbox())
    look.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return look
