"""The language model: a Hugging Face causal language model by name, from a folder, or new from a configuration."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from agent.config import Language
from workloads.errors import ModelError
from workloads.models.configuration import configure, first_line

disable_progress_bar()  # a bar is for a terminal; this goes to a journal


def build_model(model: Language, *, vocab_size: int, end_of_text: int, key: str = "model") -> PreTrainedModel:
    """The model in fp32, on the CPU, ready to train. New weights are drawn from torch's generator: seed it before.

    Attention is transformers' own choice, which looks at the architecture only: torch's `sdpa`, or `eager` where
    `sdpa` lacks something (Gemma 2's soft-capping). `key`: where it stands in the run file, for messages.

    Raises:
        ModelError: the name can't be loaded, or the configuration is none.
    """
    if model.name is not None:
        built = _load(model.name, key)
        if built.get_input_embeddings().num_embeddings < vocab_size:
            built.resize_token_embeddings(vocab_size)
    else:
        config = _configure(model.config or {}, vocab_size, end_of_text, key)
        built = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    built.train()
    return built


def _load(name: str, key: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"can't load the model {name!r}: download it while there is a network, name a folder that has it, or give "
            f"{key}.config to train a new one ({first_line(error)})"
        ) from error


def _configure(given: dict[str, Any], vocab_size: int, end_of_text: int, key: str) -> PretrainedConfig:
    """A configuration for this tokenizer. No token is padding: Gemma's default would leave token 0 untrained."""
    ours = {"bos_token_id": None, "eos_token_id": end_of_text, "pad_token_id": None, "vocab_size": vocab_size}
    config = configure(given, ours, key=f"{key}.config")
    if config.vocab_size < vocab_size:
        raise ModelError(
            f"{key}.config.vocab_size {config.vocab_size} is less than the tokenizer's {vocab_size}: leave it out"
        )
    return config
