"""Programs from npm, as a person would install them; each set is fetched once, into the user's cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cloud.examples import REPOSITORY

INSTALL_S = 900
RUN_S = 240


@dataclass(frozen=True, kw_only=True)
class Programs:
    folder: Path
    node: Path

    def run(self, program: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.node.parent}{os.pathsep}{os.environ['PATH']}"
        quiet = {"CI": "1", "CHECKPOINT_DISABLE": "1", "DISABLE_VERSION_CHECK": "1"}
        return subprocess.run(
            [self.folder / "node_modules/.bin" / program, *arguments],
            cwd=REPOSITORY, env={**os.environ, **quiet, **env, "PATH": path},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip


def installed(*packages: str) -> Programs:
    """Skips where npm's registry can't be reached."""
    import infra.stacks.node  # noqa: F401, it chooses the Node.js

    node = Path(os.environ["JSII_NODE"])
    bundled = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    npm = [str(node), str(bundled)] if bundled.exists() else [shutil.which("npm") or pytest.skip("there is no npm")]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "spot-training" / "-".join(re.sub(r"[@/]", "-", package) for package in packages)
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
        asked = subprocess.run(
            [*npm, "view", packages[0], "version"], cwd=folder, env=env,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if asked.returncode:
            pytest.skip(f"npm's registry does not answer: {asked.stderr.strip()[-300:]}")
        (folder / "package.json").write_text('{"private": true}')
        command = [*npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (folder / "complete").touch()
    return Programs(folder=folder, node=node)
