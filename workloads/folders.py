"""Where the trainers keep what is made once on a machine."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`SPOT_CACHE_DIR`, else a folder in the user's cache."""
    return Path(os.environ.get("SPOT_CACHE_DIR") or Path.home() / ".cache" / "spot-training")
