"""Makes scenes where this machine has none of them: `python -m workloads.scenes scenes:stamps`."""

import sys

from workloads.errors import DataError
from workloads.scenes.make import scenes_folder


def main() -> None:
    """The command line: one source, as in the run file."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m workloads.scenes SOURCE")
    try:
        print(scenes_folder(sys.argv[1]))
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
