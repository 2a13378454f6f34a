"""`spot checkpoints`: what a session has saved comes out of the bucket by component, verified, or with words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import SaveReason, Staged
from spot_training.state import TrainState
from spot_training.tensors import lay_out, views
from torch import nn
from typer.testing import CliRunner, Result

from agent.checkpoint import drain
from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.components import of_address
from agent.checkpoint.drain import Uploader
from agent.checkpoint.saver import Saver
from agent.store import open_store
from infra.cli import app
from tests.agent.checkpoint.saving import claim
from workloads.errors import ModelError
from workloads.models.part import start_part, start_parts


class Config:
    """What transformers' configurations have."""

    model_type = "siglip_vision_model"

    def to_json_string(self, *, use_diff: bool) -> str:
        return json.dumps({"model_type": self.model_type, "hidden_size": 8, "diff": use_diff})


class Whole(nn.Module):
    """As transformers' models are: with a configuration, and a word to save them."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.patches = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("places", torch.arange(8), persistent=False)

    def save_pretrained(self, folder: Path) -> None:
        raise NotImplementedError


class Seeing(nn.Module):
    """Three parts, of which one wraps a whole model, and two share a name somewhere below."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.vision = nn.ModuleDict({"model": Whole()})
        self.vision.config = self.vision["model"].config
        self.connector = nn.Sequential(nn.Linear(8, width), nn.Linear(width, 8))
        self.language = nn.ModuleDict({"embed": nn.Embedding(16, 8), "head": nn.Linear(8, 16, bias=False)})
        self.language["head"].weight = self.language["embed"].weight
        self.temperature = nn.Parameter(torch.ones(1))


Save = Callable[..., nn.Module]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/runs/mine"


def save(url: str, model: nn.Module, steps: Sequence[tuple[int, SaveReason]], run_id: str = "mine") -> None:
    """What the session and the agent make of it, in parts of a few hundred bytes."""
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    state = TrainState({"model": model, "optimizer": optimizer})
    store = open_store(url)

    async def commit() -> None:
        saver = Saver(Checkpoints(store, run_id), Uploader(store, connections=1, background=1), 2, "us")
        saver.attempt = claim(store, "us")
        for step, reason in steps:
            snapshot = state.snapshot(state.note(step))
            layout = lay_out(snapshot.tensors)
            arena = Arena.create(layout.size)
            arena.view[: len(layout.header)] = layout.header
            for name, view in views(layout, arena.view).items():
                view.copy_(snapshot.tensors[name])
            saver.share(0, [arena])
            saver.staging(0, step, 0)
            await saver.staged(Staged(0, step, layout.size, snapshot.values, reason, 0.1))
            await saver.settle(timeout=20.0)
            assert saver.committed_step == step
        saver.uploader.close()

    asyncio.run(commit())


@pytest.fixture
def model(url: str, monkeypatch: pytest.MonkeyPatch) -> Seeing:
    monkeypatch.setattr(drain, "MIN_PART", 4096)
    torch.manual_seed(1)
    model = Seeing()
    save(url, model, [(4, "cadence"), (6, "border"), (8, "cadence")])
    return model


def spot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["checkpoints", *map(str, arguments)])


def weights(part: nn.Module) -> dict[str, torch.Tensor]:
    """Tied ones once, as they are kept."""
    state = part.state_dict()
    return {name: tensor for name, tensor in state.items() if name != "head.weight"}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_are_listed_and_shown_by_component(url: str, model: Seeing) -> None:
    rows = json.loads(spot("ls", url, "--json").stdout)
    assert [(row["step"], row["reason"], row["kept"]) for row in rows] == [
        (8, "cadence", "rolling"), (6, "border", "rolling"), (6, "border", "for good"),
    ]  # fmt: skip
    assert "for good" in spot("ls", url).stdout
    shown = json.loads(spot("show", url, "--step", 6, "--json").stdout)
    sizes = {row["component"]: row["tensors"] for row in shown["components"]}
    assert sizes == {"model": 13, "model.connector": 4, "model.language": 1, "model.vision": 7}
    assert "model.connector" in spot("show", url).stdout


def test_a_component_is_exported_with_the_names_that_it_has_by_itself(url: str, model: Seeing, tmp_path: Path) -> None:
    done = spot("export", url, "--component", "vision", "--to", tmp_path / "vision")
    assert done.exit_code == 0, done.output
    assert same(load_file(tmp_path / "vision/model.safetensors"), weights(model.vision["model"]))
    config = json.loads((tmp_path / "vision/config.json").read_text())
    assert config == {"model_type": "siglip_vision_model", "hidden_size": 8, "diff": False}
    assert spot("export", url, "--component", "model.connector.0", "--to", tmp_path / "part").exit_code == 0
    assert same(load_file(tmp_path / "part/model.safetensors"), weights(model.connector[0]))
    assert spot("export", url, "--to", tmp_path / "all").exit_code == 0
    found = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert found == {
        "model.safetensors", "vision/model.safetensors", "vision/config.json", "connector/model.safetensors",
        "language/model.safetensors",
    }  # fmt: skip
    assert same(load_file(tmp_path / "all/connector/model.safetensors"), weights(model.connector))
    assert same(load_file(tmp_path / "all/language/model.safetensors"), weights(model.language))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "nothing half written"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--component", "eyes"], "'eyes' is none of its components; it has model, model.connector, model.language"),
        (["--component", "weight"], "is none of its components"),
        (["--step", "7"], "no checkpoint of step 7; there are: 8, 6"),
    ],
)
def test_what_is_not_there_is_told_by_name_and_nothing_is_written(
    url: str, model: Seeing, tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = spot("export", url, *arguments, "--to", tmp_path / "new")
    assert done.exit_code == 1
    assert told in done.output
    assert not (tmp_path / "new").exists()


def test_a_part_that_is_not_what_it_was_is_found_by_verify_and_never_exported(
    url: str, model: Seeing, tmp_path: Path
) -> None:
    whole = spot("verify", url)
    assert (whole.exit_code, "is whole" in whole.output) == (0, True)
    checkpoint = of_address(f"{url}@8")
    bad = checkpoint.parts[len(checkpoint.parts) // 2]
    store = open_store(url)
    content = bytearray(store.read(bad.name, timeout=5.0))
    content[7] ^= 1
    store.replace(bad.name, bytes(content), timeout=5.0)
    for command in (["verify", url], ["export", url, "--to", tmp_path / "new"]):
        done = spot(*command)
        assert done.exit_code == 1
        assert f"mine@8 is not whole: {bad.name}" in done.output
    assert not (tmp_path / "new").exists()
    assert spot("verify", url, "--step", 6).exit_code == 0


def test_a_part_of_a_model_starts_from_another_runs_checkpoint_where_all_of_it_fits(url: str, model: Seeing) -> None:
    torch.manual_seed(2)
    other = Seeing()
    assert not same(weights(other.vision), weights(model.vision))
    told = start_part(other.vision, f"{url}@6", component="vision", key="model.vision.from")
    assert same(weights(other.vision), weights(model.vision))
    assert told == f"model.vision starts from {url}@6: 7 tensors of model.vision"
    start_part(other.language, f"{url}@8", component="language", key="model.language.from")
    assert same(weights(other.language), weights(model.language))
    for wrong, address, why in [
        (Seeing(width=5), f"{url}@6", r"model\.connector\.from: .*0\.weight is \[4, 8\] there and \[5, 8\] here"),
        (Seeing(), f"{url}@5", "no checkpoint of step 5"),
        (Seeing(), "gs://bucket", "names no checkpoint"),
    ]:
        before: dict[str, Any] = {name: tensor.clone() for name, tensor in wrong.state_dict().items()}
        with pytest.raises(ModelError, match=why):
            start_part(wrong.connector, address, component="connector", key="model.connector.from")
        assert same(before, wrong.state_dict()), "nothing was changed"
    with pytest.raises(
        ModelError,
        match=r"model\.vision\.from: .* has no embed\.weight; .*no model\.vision\.model\.norm\.bias here; .*and 3 more",
    ):
        start_part(other.language, f"{url}@8", component="vision", key="model.vision.from")


@pytest.mark.slow
def test_what_transformers_made_it_reads_again_from_the_folders(url: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForCausalLM

    from agent.config import Connector, Language, Model, Vision
    from workloads.vlm.model import build

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    seeing = Vision(config={"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4, **sizes})
    speaking = Language(
        config={"model_type": "qwen3", "vocab_size": 32, "num_key_value_heads": 1, "head_dim": 8, **sizes}
    )  # fmt: skip
    parts = Model(vision=seeing, language=speaking, connector=Connector(visual_words=8))
    torch.manual_seed(3)
    model = build(parts, vocab_size=32, end_of_text=0)
    save(url, model, [(2, "cadence")])
    assert spot("export", url, "--to", tmp_path / "all").exit_code == 0
    for part, kind, name in [
        (model.language, AutoModelForCausalLM, "language"), (model.vision.model, AutoModel, "vision"),
    ]:  # fmt: skip
        read = kind.from_pretrained(tmp_path / "all" / name)
        assert type(read) is type(part)
        assert same(dict(read.named_parameters()), dict(part.named_parameters()))
    torch.manual_seed(4)
    fresh = build(parts, vocab_size=32, end_of_text=0)
    for name in ("vision", "language", "connector"):
        start_part(fresh.get_submodule(name), f"{url}@2", component=name, key=f"model.{name}.from")
    assert same(fresh.state_dict(), model.state_dict())
    alone = f"{url.removesuffix('/mine')}/alone"
    save(alone, model.language, [(1, "cadence")], run_id="alone")
    torch.manual_seed(5)
    speaking_only = build(parts, vocab_size=32, end_of_text=0)
    (told,) = start_parts(
        speaking_only,
        parts.model_copy(
            update={"language": Language.model_validate({"from": f"{alone}@1", "config": speaking.config})}
        ),
    )
    assert told.endswith("14 tensors of model")
    assert same(speaking_only.language.state_dict(), model.language.state_dict())
