"""Text as Terraform gives it to Google: evaluated by Terraform itself where it is installed, else by its rule."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAM = shutil.which("terraform") or shutil.which("tofu")


def rendered(values: dict[str, str]) -> dict[str, str]:
    """The values of a synthesized mapping of texts without references."""
    return _evaluated(PROGRAM, values) if PROGRAM else {key: by_rule(text) for key, text in values.items()}


def by_rule(text: str) -> str:
    """What Terraform's language says of a text without templates: `$${` and `%%{` stand for `${` and `%{`."""
    return text.replace("$${", "${").replace("%%{", "%{")


def _evaluated(program: str, values: dict[str, str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.tf.json").write_text(json.dumps({"locals": {"values": values}}))
        done = subprocess.run(
            [program, "console", "-no-color"],
            input="jsonencode(local.values)\n",
            cwd=folder,
            env={"PATH": os.environ["PATH"], "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    answer: dict[str, str] = json.loads(json.loads(done.stdout))
    return answer
