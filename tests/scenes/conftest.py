"""Things of plain colours: what stands where can be read back from the pixels."""

import pytest
from PIL import Image

from workloads.scenes.compose import Thing

COLOURS = {"owl": "red", "tux": "lime", "bison": "blue", "zebra": "yellow", "apple": "magenta", "pear": "cyan"}
GROUPS = {"owl": "birds", "tux": "birds", "bison": "mammals", "zebra": "mammals", "apple": "fruits", "pear": "fruits"}


@pytest.fixture(scope="session")
def things() -> list[Thing]:
    return [Thing(name, GROUPS[name], (Image.new("RGBA", (20, 12), colour),)) for name, colour in COLOURS.items()]
