"""Trains ARR-COC on pictures with questions: `python -m workloads.arr_coc.train RUN.yaml`."""

import json
import os
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order; read when CUDA starts

import torch
from PIL import Image
from spot_training import Session
from torch import Tensor

from agent.config import ArrCoc, RunConfig
from workloads import command
from workloads.arr_coc.data import read
from workloads.arr_coc.measure import Sums, evaluate, summed_loss, sums_of
from workloads.arr_coc.model import beside_the_answer, build
from workloads.arr_coc.questions import Questions
from workloads.arr_coc.sheet import paint
from workloads.arr_coc.shown import Shown, as_png
from workloads.errors import DataError
from workloads.models.part import start_parts
from workloads.models.vision import build_vision
from workloads.stages.settings import Settings
from workloads.stages.stages import Stages, make_optimizer

SHOWN = 8
"""Samples on a sheet: of the evaluation, always the same."""


def train(run: RunConfig) -> None:
    """Train `run` to its end, from its newest checkpoint or from the start."""
    if run.model is None or run.model.vision is None or run.model.arr_coc is None or run.data is None:
        raise DataError(
            "the arr-coc trainer needs model.vision, model.language, model.arr_coc and data in the run file"
        )
    if os.environ.get("WORLD_SIZE", "1") != "1" or run.machine.vms > 1:
        raise DataError("the arr-coc trainer runs as one process on one VM: write machine.vms: 1, and no torchrun")
    session = Session.open(run.run_id)  # first: the agent fetches the checkpoint while the rest is made
    training, config = run.training, run.model.arr_coc
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(training.seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # only costs time

    vision = build_vision(run.model.vision)
    data = read(run, vision.image_size)
    model = build(run.model, vision, vocab_size=len(data.tokenizer), end_of_text=data.shape.end_token).to(device)
    batches = data.batches(run, seed=training.seed)
    held = list(data.held(micro_batch=training.micro_batch, device=device, count=training.eval_batches))
    optimizer = make_optimizer(model, training)
    stages = Stages(run, model, optimizer)
    settings = Settings(run, model.described(), key="model")
    shown = Shown.of(run)
    params = sum(param.numel() for param in model.parameters())
    print(
        f"{params / 1e6:.3g}M parameters in {training.dtype}, {data.opened.told()}, budgets of "
        f"{', '.join(map(str, config.budgets))} tokens of {model.side**2}, {device.type}",
        flush=True,
    )

    def forward(asked: Questions, budget: int) -> tuple[Tensor, Tensor, Sums, dict[str, float]]:
        """The answers' loss and what the parts are held to beside it, both summed, and what was measured."""
        with torch.autocast(device.type, torch.bfloat16, enabled=training.dtype == "bf16"):
            logits, seen = model(asked.pixels, asked.ids, asked.asked, budget, asked.keys)
        scores = seen.relevance.scores if seen.relevance else {}
        means = {f"{way}_score": score.mean((1, 2)).sum().item() for way, score in scores.items()}
        return summed_loss(logits, asked.labels), beside_the_answer(seen, config), sums_of(asked, logits, seen), means

    def measure() -> dict[str, float]:
        """Each budget on the same samples."""
        found: dict[str, float] = {}
        for budget in config.budgets:
            sums = evaluate(model, held, budget, beat=session.beat)
            found[f"eval_loss_{budget}"] = sums.loss / sums.targets
            found[f"eval_accuracy_{budget}"], found[f"eval_iou_{budget}"] = sums.accuracy, sums.iou
        stages.train_mode()
        return found

    def picture(budget: int) -> Image.Image:
        """Some samples as the model sees them now."""
        painted = paint(model, held[0].spread(SHOWN), budget, data.text_of)
        stages.train_mode()
        return painted

    with session:
        done = session.track(model=model, optimizer=optimizer, data=batches, stages=stages, settings=settings)
        settings.take()
        for told in () if done else start_parts(model, run.model):
            print(told, flush=True)
        print(stages.told(stages.take(done)), flush=True)
        if told := settings.told(done):
            print(told, flush=True)
        while True:
            for step in session.steps(stages.now.end):
                metrics: dict[str, float] = {}
                if training.eval_every and step % training.eval_every == 0:
                    with session.phase("evaluating"):  # before the forward pass: if interrupted, it is done again
                        metrics |= measure()
                        shown.show(picture(min(config.budgets)), step)

                began = time.perf_counter()
                batch = next(batches)
                budget = budget_of(config, step)
                micro_batches = [data.questions(micro).to(device) for micro in batch.micro_batches]
                samples = sum(map(len, micro_batches))
                sums, means = Sums(), dict.fromkeys((f"{way}_score" for way in model.ways), 0.0)
                for asked in micro_batches:
                    loss, beside, measured, scored = forward(asked, budget)
                    # Means over the global batch, however it is cut.
                    (loss / batch.targets + beside / samples).backward()  # type: ignore[no-untyped-call]
                    sums += measured
                    means = {name: value + scored[name] / samples for name, value in means.items()}

                with session.update():
                    if training.clip_norm:
                        norm = torch.nn.utils.clip_grad_norm_(stages.trained(), training.clip_norm)
                        metrics["gradient_norm"] = norm.item()
                    metrics |= {"loss": sums.loss / batch.targets, "accuracy": sums.accuracy, **means}
                    metrics |= {"avg_lod_allocation": sums.lod / samples, "tokens_used": sums.tokens / samples}
                    metrics |= {"iou": sums.iou, "learning_rate": max(stages.rates.values())}
                    optimizer.step()
                    stages.set_rates(step + 1)
                    optimizer.zero_grad(set_to_none=True)
                    metrics["samples_per_s"] = samples / (time.perf_counter() - began)
                    session.log(step=step, **metrics, stage=stages.now.name, **settings.marked())
                print(f"step {step}", *(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)

            if stages.next is None:
                break
            session.stage_complete(stages.now.name)  # ends here where the next stage has a machine of its own
            print(stages.told(stages.cross()), flush=True)

        def save(folder: Path) -> None:
            model.save(folder)
            data.tokenizer.save_pretrained(folder / "language")
            final = {"step": training.max_steps, **measure()}
            (folder / "eval.json").write_text(json.dumps(final) + "\n")
            for budget in config.budgets:
                (folder / f"samples-{budget}.png").write_bytes(as_png(picture(budget)))
            accuracies = ", ".join(f"{final[f'eval_accuracy_{budget}']:.1%} at {budget}" for budget in config.budgets)
            print(f"finished at step {training.max_steps}: right answers {accuracies} tokens", flush=True)

        session.finish(save)


def budget_of(config: ArrCoc, step: int) -> int:
    """A step's tokens for an image: drawn, so that one model is trained for all budgets."""
    drawn = int(torch.randint(len(config.budgets), ()))
    return max(config.budgets) if step < config.whole_steps else config.budgets[drawn]


def main() -> None:
    """The command line: one run file."""
    command.run(train, program="workloads.arr_coc.train")


if __name__ == "__main__":
    main()
