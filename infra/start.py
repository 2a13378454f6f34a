"""Start: what `spot` runs. `spot saved`, which programs call after each of their saves, does without all the rest."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:2] == ["saved"]:
        from spot_training.protocol import tell  # noqa: PLC0415

        sys.exit(tell.main(sys.argv[2:]))
    from infra.cli import app  # noqa: PLC0415 - takes half a second

    app()


if __name__ == "__main__":
    main()
