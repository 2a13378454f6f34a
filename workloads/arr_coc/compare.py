"""The honest comparison: `python -m workloads.arr_coc.compare [RUN.yaml] [--seeds N]`. It says what it says.

Of each seed, encoder, adapter and language model are trained once, on tokens that were chosen in every way that needs
no learning. Then every row trains on for the same number of steps on its own tokens: the adapter, and what scores where
there is anything that scores. Encoder and language model are frozen then, and the same in all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.optim import AdamW

from agent.config import RunConfig, RunFileError, Training, load_run
from agent.config.arr_coc import Reduction, Ways
from workloads.arr_coc.data import read
from workloads.arr_coc.measure import evaluate, summed_loss
from workloads.arr_coc.model import ArrCocModel, beside_the_answer, build
from workloads.arr_coc.report import Point, plot, table
from workloads.arr_coc.sheet import paint
from workloads.arr_coc.shown import as_png
from workloads.errors import DataError, ModelError
from workloads.models.vision import build_vision
from workloads.stages.schedule import learning_rate_factor

UNLEARNED: tuple[Reduction, ...] = ("random", "uniform", "pooled")
OURS: dict[str, Ways] = {
    "ours": "all",
    "ours, no propositional": "no_propositional",
    "ours, no perspectival": "no_perspectival",
    "ours, no participatory": "no_participatory",
}
"""Rows that are learnt, and their ways of knowing."""
EVAL_BATCH = 96
SHOWN = 8
RUN = Path("workloads/arr_coc/run.yaml")
OUT = Path("out/arr-coc-comparison")


@dataclass
class Comparison:
    """One seed's rows, measured as they become ready."""

    run: RunConfig
    seed: int
    steps: int
    """For what all rows share."""
    more: int
    """For what each row has for itself."""

    def __post_init__(self) -> None:
        model, self.training = self.run.model, self.run.training
        if model is None or model.vision is None or model.arr_coc is None:
            raise DataError("the comparison needs a run file of kind arr-coc")
        self.config = model.arr_coc
        torch.manual_seed(self.seed)
        vision = build_vision(model.vision)
        self.data = read(self.run, vision.image_size)
        self.batches = self.data.batches(self.run, seed=self.seed)
        self.held = list(self.data.held(micro_batch=EVAL_BATCH, device=torch.device("cpu")))
        unlearned = model.model_copy(update={"arr_coc": self.config.model_copy(update={"reduction": "pooled"})})
        vocabulary, end = len(self.data.tokenizer), self.data.shape.end_token
        self.shared = build(unlearned, vision, vocab_size=vocabulary, end_of_text=end)
        self.points: list[Point] = []
        self.sheet: Image.Image | None = None
        """Samples as `ours` sees them, at the smallest budget."""

    def all_rows(self) -> list[Point]:
        """Train and measure."""
        everything = max(self.config.budgets)
        fewer = tuple(budget for budget in self.config.budgets if budget != everything)
        self._fit(self.shared, self.steps, UNLEARNED, self.config.budgets, whole_steps=self.config.whole_steps)
        self.shared.requires_grad_(False)
        self._row("full", "uniform", "all", (everything,))
        for reduction in UNLEARNED:
            self._row(reduction, reduction, "all", fewer)
        for row, ways in OURS.items():
            ours = self._row(row, "learned", ways, fewer)
            if ways == "all":
                self.sheet = paint(ours, self.held[0].spread(SHOWN), min(fewer), self.data.text_of)
        return self.points

    def _row(self, row: str, reduction: Reduction, ways: Ways, budgets: Sequence[int]) -> ArrCocModel:
        """Train what a row has for itself, on its own tokens, and measure it."""
        torch.manual_seed(self.seed)
        config = self.config.model_copy(update={"ways": ways, "reduction": reduction})
        mine = ArrCocModel(self.shared.vision, self.shared.language, config)
        mine.adapter = deepcopy(self.shared.adapter).requires_grad_(True)
        self._fit(mine, self.more, (reduction,), budgets)
        self._measure(mine, row, budgets, reduction)
        return mine

    def _fit(
        self,
        model: ArrCocModel,
        steps: int,
        reductions: Sequence[Reduction],
        budgets: Sequence[int],
        *,
        whole_steps: int = 0,
    ) -> None:
        """Train what is not frozen, from the first sample on; each step draws a reduction and a budget."""
        self.batches.load_state_dict(self.batches.state_dict() | {"samples": 0})
        training, config = self.training, model.config
        trained = [param for param in model.parameters() if param.requires_grad]
        optimizer = _optimizer(trained, training)
        model.train()
        for step in range(steps):
            batch = next(self.batches)
            budget = budgets[int(torch.randint(len(budgets), ()))]
            reduction = reductions[int(torch.randint(len(reductions), ()))]
            budget = max(budgets) if step < whole_steps else budget
            for micro in batch.micro_batches:
                asked = self.data.questions(micro)
                logits, seen = model(asked.pixels, asked.ids, asked.asked, budget, asked.keys, reduction=reduction)
                loss = summed_loss(logits, asked.labels) / batch.targets
                loss = loss + beside_the_answer(seen, config) / training.global_batch
                loss.backward()  # type: ignore[no-untyped-call]
            if training.clip_norm:
                torch.nn.utils.clip_grad_norm_(trained, training.clip_norm)
            factor = learning_rate_factor(
                step,
                schedule=training.schedule,
                warmup_steps=steps // 20,
                max_steps=steps,
                min_ratio=training.min_learning_rate_ratio,
            )
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _measure(self, model: ArrCocModel, row: str, budgets: Sequence[int], reduction: Reduction) -> None:
        for budget in budgets:
            began = time.process_time()
            sums = evaluate(model, self.held, budget, reduction=reduction)
            ms = 1000 * (time.process_time() - began) / sums.samples
            self.points.append(Point(row, self.seed, budget, sums.accuracy, sums.iou, ms))
            print(
                f"seed {self.seed}: {row} at {budget} tokens: accuracy {sums.accuracy:.3f}, IoU {sums.iou:.3f}, "
                f"{ms:.2f} ms a sample",
                flush=True,
            )


def _optimizer(trained: Sequence[nn.Parameter], training: Training) -> AdamW:
    groups = [
        {"params": [param for param in trained if param.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [param for param in trained if param.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=training.learning_rate, betas=training.betas, fused=True)


def main() -> None:
    """The command line. What a seed gave is kept in OUT, and not computed again while it is there."""
    parser = argparse.ArgumentParser(prog="python -m workloads.arr_coc.compare", description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, default=RUN, help="a run file of kind arr-coc [%(default)s]")
    parser.add_argument("--seeds", type=int, default=5, help="how many of them [%(default)s]")
    parser.add_argument("--steps", type=int, default=900, help="of what all rows share [%(default)s]")
    parser.add_argument("--more", type=int, default=250, help="of each row by itself [%(default)s]")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder for table and plot [%(default)s]")
    given = parser.parse_args()
    try:
        run = load_run(given.run)
        given.out.mkdir(parents=True, exist_ok=True)
        points: list[Point] = []
        for seed in range(given.seeds):
            kept = given.out / f"seed-{seed}-{given.steps}-{given.more}.json"
            if not kept.exists():
                comparison = Comparison(run, seed, given.steps, given.more)
                found = json.dumps([asdict(point) for point in comparison.all_rows()], indent=1)
                if comparison.sheet:
                    (given.out / f"samples-{seed}.png").write_bytes(as_png(comparison.sheet))
                kept.write_text(found + "\n")
            points += [Point(**point) for point in json.loads(kept.read_text())]
    except (RunFileError, DataError, ModelError, OSError) as error:
        sys.exit(f"error: {error}")
    (given.out / "table.md").write_text(table(points))
    (given.out / "plot.png").write_bytes(as_png(plot(points)))
    print(table(points))
    print(f"{given.out}/table.md, {given.out}/plot.png")


if __name__ == "__main__":
    main()
