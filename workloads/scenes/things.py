"""The things that scenes are composed of, and the pictures of them in each package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from workloads.scenes.compose import Thing

LARGEST = 96
"""Pixels: a look is shrunk to it once, so that a scene is composed in a millisecond."""

GROUPS = {
    "birds": ("owl", "penguin", "flamingo", "rooster"),
    "mammals": ("bison", "zebra", "giraffe", "fox"),
    "fruits": ("apple", "banana", "strawberry", "grapes"),
    "vehicles": ("bus", "tractor", "boat", "helicopter"),
}

STAMP_FILES = {
    "owl": ("animals/birds/owl",),
    "penguin": ("animals/birds/penguin", "animals/birds/magellanic_penguin"),
    "flamingo": ("animals/birds/pink_flamingo",),
    "rooster": ("animals/birds/rooster",),
    "bison": ("animals/mammals/bovines/bison",),
    "zebra": ("animals/mammals/equines/zebra",),
    "giraffe": ("animals/mammals/giraffe",),
    "fox": ("animals/mammals/dogs/fox",),
    "apple": ("food/fruit/apple_red", "food/fruit/apple_green", "food/fruit/cartoon/apple"),
    "banana": ("food/fruit/banana", "food/fruit/cartoon/banana"),
    "strawberry": ("food/fruit/Strawberry2", "food/fruit/cartoon/strawberry"),
    "grapes": ("food/fruit/grapes", "food/fruit/cartoon/grapes"),
    "bus": ("vehicles/masstransit/cartoon/double_decker_bus",),
    "tractor": ("vehicles/farming/cartoon/tux_tractor",),
    "boat": ("vehicles/ship/cartoon/tugboat",),
    "helicopter": ("vehicles/flight/cartoon/eddieCopter",),
}
"""Of Debian's tuxpaint-stamps-default. Each has a caption beside it that says the name."""

EMOJI_FILES = {
    "owl": ("1f989",),
    "penguin": ("1f427",),
    "flamingo": ("1f9a9",),
    "rooster": ("1f413",),
    "bison": ("1f9ac",),
    "zebra": ("1f993",),
    "giraffe": ("1f992",),
    "fox": ("1f98a",),
    "apple": ("1f34e", "1f34f"),
    "banana": ("1f34c",),
    "strawberry": ("1f353",),
    "grapes": ("1f347",),
    "bus": ("1f68c",),
    "tractor": ("1f69c",),
    "boat": ("26f5",),
    "helicopter": ("1f681",),
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
