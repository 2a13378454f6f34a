"""The image's own PyTorch: this Python's, lent to the VMs read-only, as a deep learning image has it."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
from pathlib import Path

HOST_SITE = "/opt/image/site-packages"
LINKS = "/opt/image/pytorch"
PTH = "/usr/local/lib/python3.11/dist-packages/image-pytorch.pth"
_WANTED = ("torch", "numpy", "safetensors")


def mounts(folder: Path) -> list[str]:
    """Options of `docker run`; `folder` will hold links to PyTorch and what it needs, and to nothing else.

    Raises RuntimeError where this Python's PyTorch can't run in the VMs, which have Debian's 3.11.
    """
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError(f"the VMs have Python 3.11, and can't borrow the PyTorch of {sys.version.split()[0]}")
    links = folder / "pytorch"
    links.mkdir(parents=True)
    for name in sorted(_top_levels()):
        (links / name).symlink_to(f"{HOST_SITE}/{name}")
    pth = folder / "image-pytorch.pth"
    pth.write_text(LINKS + "\n")
    site = sysconfig.get_paths()["purelib"]
    pairs = ((site, HOST_SITE), (str(links), LINKS), (str(pth), PTH))
    return [option for source, target in pairs for option in ("--volume", f"{source}:{target}:ro")]


def _top_levels() -> set[str]:
    """What the wanted distributions and those they need have put into site-packages."""
    front, seen, names = list(_WANTED), set(), set()
    while front:
        name = re.split(r"[^A-Za-z0-9._-]", front.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra, or for another platform
        names |= {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}
        front += [need for need in found.requires or [] if "extra ==" not in need]
    return names
