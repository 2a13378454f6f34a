"""A transformers configuration as a run file gives it."""

import difflib
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from workloads.errors import ModelError


def configure(given: dict[str, Any], ours: dict[str, Any], *, key: str) -> PretrainedConfig:
    """`given`, with `ours` where it says nothing. `key`: where it stands in the run file.

    Raises:
        ModelError: there is no such architecture, or it does not know a key.
    """
    rest = dict(given)
    model_type = rest.pop("model_type", "")
    try:
        known = AutoConfig.for_model(model_type).to_dict()
        unknown = sorted(rest.keys() - known.keys())
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {close[0]}?" if close else "leave it out"
            raise ModelError(f"{key} has {unknown[0]!r}, which {model_type} does not know: {hint}")
        return AutoConfig.for_model(model_type, **(ours | rest))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{key} is no configuration of {model_type!r}: {error}") from error


def first_line(error: Exception) -> str:
    """What an error of transformers comes to: the rest is advice about their own calls."""
    return str(error).strip().partition("\n")[0]
