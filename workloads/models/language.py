"""The model: a Hugging Face causal language model by name, from a folder, or new from a configuration."""

import difflib
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from agent.config import Model

disable_progress_bar()  # a bar is for a terminal; this goes to a journal


class ModelError(Exception):
    """The model can't be had as the run file asks for it. Says what to do."""


def build_model(model: Model, *, vocab_size: int, end_of_text: int) -> PreTrainedModel:
    """The model in fp32, on the CPU, ready to train. New weights are drawn from torch's generator: seed it before.

    Attention is transformers' own choice, which looks at the architecture only: torch's `sdpa`, or `eager` where
    `sdpa` lacks something (Gemma 2's soft-capping).

    Raises:
        ModelError: the name can't be loaded, or the configuration is none.
    """
    if model.name is not None:
        built = _load(model.name)
        if built.get_input_embeddings().num_embeddings < vocab_size:
            built.resize_token_embeddings(vocab_size)
    else:
        built = AutoModelForCausalLM.from_config(
            _configure(model.config or {}, vocab_size, end_of_text), dtype=torch.float32
        )
    built.train()
    return built


def _load(name: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"can't load the model {name!r}: download it while there is a network, name a folder that has it, or give "
            f"model.config to train a new one ({str(error).strip().partition(chr(10))[0]})"
        ) from error


def _configure(given: dict[str, Any], vocab_size: int, end_of_text: int) -> PretrainedConfig:
    """A configuration for this tokenizer. No token is padding: Gemma's default would leave token 0 untrained."""
    rest = dict(given)
    model_type = rest.pop("model_type", "")
    ours = {"bos_token_id": None, "eos_token_id": end_of_text, "pad_token_id": None, "vocab_size": vocab_size}
    try:
        known = AutoConfig.for_model(model_type).to_dict()
        unknown = sorted(rest.keys() - known.keys())
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {close[0]}?" if close else "leave it out"
            raise ModelError(f"model.config has {unknown[0]!r}, which {model_type} does not know: {hint}")
        config = AutoConfig.for_model(model_type, **(ours | rest))
    except (ValueError, TypeError) as error:
        raise ModelError(f"model.config is no configuration of {model_type!r}: {error}") from error
    if config.vocab_size < vocab_size:
        raise ModelError(
            f"model.config.vocab_size {config.vocab_size} is less than the tokenizer's {vocab_size}: leave it out"
        )
    return config
