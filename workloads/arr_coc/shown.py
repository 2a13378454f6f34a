"""Pictures for people, put beside the run's checkpoints while it trains: PICTURES/step-000100.png in its bucket."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agent.config import RunConfig
from agent.store import AlreadyExists, Store, StoreError, open_store
from agent.store.names import PICTURES

CALL_S = 20.0


@dataclass(frozen=True)
class Shown:
    """Where the pictures of one run go."""

    where: Store | Path

    @classmethod
    def of(cls, run: RunConfig) -> Shown:
        """The run's bucket; without an agent, the folder that its metrics are in."""
        if os.environ.get("SPOT_AGENT_SOCKET"):
            return cls(open_store(f"{run.checkpoint.bucket}/{run.run_id}"))
        return cls(Path(os.environ.get("SPOT_STATE_DIR") or Path("out") / run.run_id))

    def show(self, picture: Image.Image, step: int) -> None:
        """Keep it. A step that is done again shows the same, so that the first one stays. What can't be kept is told,
        and stops nothing."""
        name, content = f"{PICTURES}step-{step:06}.png", as_png(picture)
        try:
            if isinstance(self.where, Path):
                (self.where / name).parent.mkdir(parents=True, exist_ok=True)
                (self.where / name).write_bytes(content)
            else:
                self.where.create(name, content, timeout=CALL_S)
        except AlreadyExists:
            pass
        except (StoreError, OSError) as error:
            print(f"the picture {name} could not be kept: {error}", flush=True)


def as_png(picture: Image.Image) -> bytes:
    """The file's bytes: of the same picture always the same."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
