"""Writes a run as a run file: `load_run` reads back the same run."""

from typing import Any

import yaml

from agent.config.run import RunConfig
from agent.config.yaml_file import Loader


def run_file_text(run: RunConfig) -> str:
    """YAML with the keys that the run was given, in the file's order; folders are absolute, comments are gone."""
    text: str = yaml.dump(run.model_dump(mode="json", exclude_unset=True), Dumper=_Dumper, sort_keys=False, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes each text that a run file's reader would take for something else, and writes no anchors."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012, the class attribute that PyYAML looks up
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
            *Loader.yaml_implicit_resolvers.get(first, ()),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Loader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True
