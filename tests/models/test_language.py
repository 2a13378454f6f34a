from pathlib import Path
from typing import Any

import pytest
import torch

from agent.config import Language
from tests.llm.conftest import GEMMA2, QWEN3
from workloads.errors import ModelError
from workloads.models.language import build_model


def build(config: dict[str, Any], vocab_size: int = 300) -> Any:
    torch.manual_seed(0)
    return build_model(Language(config=config), vocab_size=vocab_size, end_of_text=0)


@pytest.mark.parametrize(("config", "attention"), [(QWEN3, "sdpa"), (GEMMA2, "eager")])
def test_configuration_gives_a_new_model_for_this_tokenizer(config: dict[str, Any], attention: str) -> None:
    model = build(config)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 300
    assert model.config.eos_token_id == 0
    assert model.config._attn_implementation == attention
    assert {param.dtype for param in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("config", [QWEN3, GEMMA2])
def test_same_seed_gives_the_same_weights(config: dict[str, Any]) -> None:
    one, two = build(config).state_dict(), build(config).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("config", [QWEN3, GEMMA2])
def test_every_token_is_trained_the_first_too(config: dict[str, Any]) -> None:
    model = build({**config, "tie_word_embeddings": False})
    model(input_ids=torch.tensor([[0, 1, 2]])).logits.sum().backward()
    assert (model.get_input_embeddings().weight.grad[:3].norm(dim=1) > 0).all()


@pytest.mark.parametrize("config", [QWEN3, GEMMA2])
def test_saved_model_is_loaded_from_its_folder(config: dict[str, Any], tmp_path: Path) -> None:
    model = build(config)
    model.save_pretrained(tmp_path)
    loaded = build_model(Language(name=str(tmp_path)), vocab_size=300, end_of_text=0)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert loaded.training


def test_loaded_model_grows_with_a_larger_tokenizer(tmp_path: Path) -> None:
    build(QWEN3).save_pretrained(tmp_path)
    loaded = build_model(Language(name=str(tmp_path)), vocab_size=310, end_of_text=0)
    assert loaded.get_input_embeddings().num_embeddings == 310


def test_name_that_can_not_be_had_offline_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match=r"can't load the model 'no/such-one': download it .* model\.config"):
        build_model(Language(name="no/such-one"), vocab_size=300, end_of_text=0)


def test_misspelt_key_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'hiden_size', which qwen3 does not know: did you mean hidden_size\?"):
        build({**QWEN3, "hiden_size": 1})


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no configuration of 'qwen99'"):
        build({"model_type": "qwen99"})


def test_vocabulary_smaller_than_the_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"vocab_size 200 is less than the tokenizer's 300"):
        build({**QWEN3, "vocab_size": 200})
