"""The parts by their founding names: each learns, none looks at a batch-mate, and the budget is kept to the token."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agent.config import ArrCoc, Model, load_run
from tests.arr_coc.conftest import LANGUAGE, TINY, VISION, draw_inputs, make_model
from workloads.arr_coc.allocator import BudgetError, best_ranks
from workloads.arr_coc.cells import covered, evenly_pooled, evenly_spread, overlap
from workloads.arr_coc.model import PARTS, ArrCocModel, Relevance, beside_the_answer, build
from workloads.arr_coc.scorers import WAYS
from workloads.arr_coc.texture import CHANNELS, texture
from workloads.models.vision import build_vision


def judged(model: ArrCocModel, inputs: dict[str, Any]) -> Relevance:
    words = model.language.get_input_embeddings()(inputs["ids"])
    return model.judge(inputs["pixels"], words[:, :6].mean(1))


def answer_loss(model: ArrCocModel, inputs: dict[str, Any], budget: int = 7) -> Tensor:
    logits, _ = model(**inputs, budget=budget)
    return cross_entropy(logits[:, 6:].flatten(0, 1), inputs["ids"][:, 6:].flatten())


def test_the_answer_alone_gives_every_part_a_gradient_in_each_of_its_parameters() -> None:
    model = make_model()
    answer_loss(model, draw_inputs(4)).backward()  # type: ignore[no-untyped-call]
    without = [
        f"{part}.{name}"
        for part in PARTS
        for name, param in model.get_submodule(part).named_parameters()
        if param.grad is None or not param.grad.abs().max() > 0
    ]
    # A bias of all keys alike changes no softmax.
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_what_a_sample_scores_does_not_depend_on_its_batch_mates() -> None:
    model, inputs = make_model().eval(), draw_inputs(5)
    together = judged(model, inputs)
    for number in range(5):
        alone = judged(model, {name: value[number : number + 1] for name, value in inputs.items()})
        for way in WAYS:
            torch.testing.assert_close(alone.scores[way][0], together.scores[way][number], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.map[0], together.map[number], rtol=0, atol=1e-5)
        assert 0 <= alone.map.min() < alone.map.max() <= 1


@pytest.mark.parametrize("reduction", ["learned", "random", "uniform", "pooled"])
def test_every_budget_is_kept_to_the_token(reduction: str) -> None:
    model, inputs = make_model(reduction=reduction), draw_inputs(3)
    for budget in (1, 7, 21, 61, 64):
        with torch.no_grad():
            _, seen = model(**inputs, budget=budget)
        assert seen.tokens.shape == (3, budget, LANGUAGE["hidden_size"])
        torch.testing.assert_close(seen.detail.sum((1, 2)), torch.full((3,), float(budget)))
        if seen.levels is not None:
            assert seen.levels.sum(1).tolist() == [budget] * 3
            assert set(seen.levels.flatten().tolist()) <= {0, 1, 4}


def test_the_allocation_is_the_best_there_is() -> None:
    levels, values = (1, 4, 9), torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(0))
    for budget in (4, 7, 12, 17, 20, 31, 36):
        choices = [at for at in product(range(3), repeat=4) if sum(levels[rank] for rank in at) == budget]
        if not choices:
            with pytest.raises(BudgetError, match=f"can't have {budget} together"):
                best_ranks(values, levels, budget)
            continue
        best = max(choices, key=lambda at: float(sum(values[0, place, rank] for place, rank in enumerate(at))))
        assert tuple(best_ranks(values, levels, budget)[0].tolist()) == best


@pytest.mark.parametrize("ways", ["no_propositional", "no_perspectival", "no_participatory", "only_propositional"])
def test_an_ablated_way_contributes_nothing_and_the_others_share_its_weight(ways: str) -> None:
    model, inputs = make_model(ways=ways).eval(), draw_inputs(3)
    ablated = [way for way in WAYS if way not in model.config.names]
    before = judged(model, inputs)
    assert list(before.scores) == [way for way in WAYS if way not in ablated]
    assert before.weights[:, [WAYS.index(way) for way in ablated]].abs().max() == 0
    torch.testing.assert_close(before.weights.sum(1), torch.ones(3))

    assert not any(hasattr(model, f"{way}_scorer") for way in ablated)
    words = torch.ones(3, 32)
    mixed, _ = model.tension_balancer(before.scores | dict.fromkeys(ablated, torch.rand(3, 32, 32)), words)
    again, _ = model.tension_balancer(before.scores, words)
    assert torch.equal(mixed, again)
    answer_loss(model, inputs).backward()  # type: ignore[no-untyped-call]
    assert [name for name, param in model.named_parameters() if param.grad is None] == []


def test_texture_has_13_channels_of_which_none_says_what_another_says() -> None:
    ground = texture(draw_inputs(4)["pixels"])
    assert ground.shape == (4, 13, 32, 32) == (4, len(CHANNELS), 32, 32)
    assert ground.min() >= 0
    assert ground.max() <= 1
    alike = torch.corrcoef(ground.transpose(0, 1).flatten(1)) - torch.eye(13)
    assert alike.abs().max() < 0.98
    even = texture(torch.zeros(1, 3, 32, 32))  # nothing to see
    assert even.isfinite().all()


def test_while_training_what_is_never_chosen_is_tried_too() -> None:
    allocator, relevance = make_model().attention_allocator, torch.rand(2, 32, 32)
    torch.manual_seed(0)
    tried = sum(allocator(relevance, 7, noise=1.0).tokens for _ in range(20))
    assert isinstance(tried, Tensor)
    assert (tried > 0).all()
    assert torch.equal(allocator(relevance, 7).chosen, allocator(relevance, 7).chosen)


def test_random_patches_are_drawn_by_the_sample_and_pooled_cells_cover_the_image() -> None:
    model, inputs = make_model(reduction="random").eval(), draw_inputs(3)
    first, again = (model(**inputs, budget=9)[1].detail for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    for count in (1, 7, 14, 21, 33, 64):
        cells = evenly_pooled(8, count)
        assert len(cells.boxes) == count
        assert (cells.weights() > 0).sum(0).tolist() == [1] * 64
        assert len(set(evenly_spread(8, count).tolist())) == count


def test_overlap_is_whole_where_the_detail_is_where_it_was_asked_for() -> None:
    region = torch.tensor([[0.25, 0.0, 0.5, 0.5], [0.0, 0.0, 0.1, 0.1]])
    asked = covered(region, 4)
    assert asked[0].tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert overlap(asked, region, 4).tolist() == pytest.approx([1, 1])
    assert overlap(torch.ones(2, 4, 4), region, 4).tolist() == pytest.approx([2 / 16, 0.16 / 16])


def test_relevance_costs_and_ways_that_score_alike_cost() -> None:
    model, inputs = make_model(efficiency_weight=0.05, diversity_weight=0.02), draw_inputs(3)
    _, seen = model(**inputs, budget=7)
    assert seen.relevance is not None
    one = seen.relevance.map.mean((1, 2)).sum().item()
    assert 0 < beside_the_answer(seen, model.config).item() - 0.05 * one <= 0.02 * 3 * 3
    twin = dict.fromkeys(WAYS, seen.relevance.scores["perspectival"])
    alike = type(seen)(
        seen.tokens, seen.detail, seen.levels, Relevance(twin, seen.relevance.map, seen.relevance.weights)
    )
    assert beside_the_answer(alike, model.config).item() - 0.05 * one == pytest.approx(0.02 * 3 * 3, rel=1e-3)


def test_the_parts_of_the_production_model_are_the_founding_documents_100_million() -> None:
    run = load_run(Path("workloads/arr_coc/production.yaml"))
    assert run.model is not None
    assert run.model.arr_coc is not None
    vision = {**VISION, "hidden_size": 1152, "image_size": 512, "patch_size": 16}  # SigLIP 2 so400m's
    parts = {"vision": {"config": vision}, "language": {"config": LANGUAGE | {"hidden_size": 1024}}}  # Qwen3 0.6B's
    model = Model.model_validate(parts | {"arr_coc": run.model.arr_coc.model_dump(mode="json")})
    assert model.vision is not None
    with torch.device("meta"):
        built = build(model, build_vision(model.vision), vocab_size=50, end_of_text=0)
    counted = sum(param.numel() for part in PARTS for param in built.get_submodule(part).parameters())
    assert 100e6 < counted < 115e6
    experiments = run.experiments()
    ways = [run.model.arr_coc.ways for run in experiments if run.model and run.model.arr_coc]
    assert ways == ["all", "no_propositional", "no_perspectival", "no_participatory", "only_propositional"]
    assert [run.run_id for run in experiments][-1] == "arr-coc-ways-only-propositional"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": [65]}, r"16 regions of 0 or 1 or 4 tokens can't have 65 together"),
        ({"levels": [4, 16], "budgets": [70]}, "can't have 70 together"),
        ({"levels": [0, 3]}, "3 tokens are no square"),
        ({"regions": 5}, "5 regions don't cut"),
        ({"efficiency_weight": 0.1}, "everything becomes irrelevant"),
        ({"heads": 3}, "3 heads don't share a width of 16"),
        ({"budgets": [7, 7]}, "listed twice"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrCoc.model_validate(TINY | changes)
