"""Trains a language model that sees, stage after stage: `python -m workloads.vlm.train RUN.yaml`."""

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order; read when CUDA starts

import torch
from spot_training import Session
from torch import Tensor
from torch.nn.functional import cross_entropy

from agent.config import RunConfig
from workloads import command
from workloads.errors import DataError
from workloads.kept import Kept
from workloads.models.part import start_parts
from workloads.models.tokenizer import digest, encode, tokenizer_for
from workloads.models.vision import IMAGE_TOKEN
from workloads.pictures.batch import IGNORED, Batch, Sample, Shape
from workloads.pictures.batches import Batches, eval_batches
from workloads.pictures.opened import find
from workloads.scenes.make import with_scenes
from workloads.scenes.report import report
from workloads.stages.settings import Settings
from workloads.stages.stages import Stages, make_optimizer
from workloads.vlm.model import build, described

ASKED_AT_THE_END = 1000
"""Questions of the evaluation that the finished model answers, at most."""


def train(run: RunConfig) -> None:
    """Train `run` to its end, from its newest checkpoint or from the start."""
    if run.model is None or run.model.language is None or run.data is None:
        raise DataError("the vlm trainer needs the sections model (vision, language) and data in the run file")
    if os.environ.get("WORLD_SIZE", "1") != "1" or run.machine.vms > 1:
        raise DataError("the vlm trainer runs as one process on one VM: write machine.vms: 1, and leave torchrun out")
    session = Session.open(run.run_id)  # first: the agent fetches the checkpoint while the rest is made
    data, training = with_scenes(run.data), run.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(training.seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # only costs time

    found = find(data)
    tokenizer = tokenizer_for(data, run.model.language, found.texts())
    model = build(run.model, vocab_size=len(tokenizer), end_of_text=tokenizer.eos_token_id).to(device)
    shape = Shape(
        image_size=model.vision.image_size,
        tokens_per_image=model.tokens_per_image,
        sequence_length=data.sequence_length,
        image_token=IMAGE_TOKEN,
        end_token=tokenizer.eos_token_id,
    )
    opened = found.open(partial(encode, tokenizer), tokenizer=digest(tokenizer), shape=shape, kept=Kept.of(run))
    batches = Batches(
        opened.train,
        shape,
        data.pictures,
        seed=training.seed,
        global_batch=training.global_batch,
        micro_batch=training.micro_batch,
    )
    optimizer = make_optimizer(model, training)
    stages = Stages(run, model, optimizer)
    settings = Settings(run, described(model), key="model")
    params = {name: sum(param.numel() for param in part.parameters()) / 1e6 for name, part in model.named_children()}
    print(
        f"{', '.join(f'{name} {count:.1f}M' for name, count in params.items())} parameters in {training.dtype}, "
        f"{opened.told()}, {shape.tokens_per_image} tokens a picture, {device.type}, {torch.get_num_threads()} threads",
        flush=True,
    )

    def logits_of(batch: Batch) -> Tensor:
        # Weights, gradients and moments are fp32; with bf16 the forward pass's matrix products are not.
        with torch.autocast(device.type, torch.bfloat16, enabled=training.dtype == "bf16"):
            places = (batch.pixels, batch.ids, batch.positions, batch.segments)
            logits: Tensor = model(*(tensor.to(device) for tensor in places))
        return logits.float()

    def summed_loss(batch: Batch) -> Tensor:
        said, labels = logits_of(batch)[:, :-1].flatten(0, 1), batch.labels[:, 1:].to(device).flatten()
        return cross_entropy(said, labels, ignore_index=IGNORED, reduction="sum")

    def held(count: int) -> Iterator[Batch]:
        """Up to `count` batches of what is evaluated on: the same ones every time."""
        for source in opened.held:
            yield from eval_batches(source, shape, data.pictures, micro_batch=training.micro_batch, count=count)

    @torch.no_grad()
    def evaluate() -> float:
        model.eval()
        loss, count = 0.0, 0
        for batch in held(training.eval_batches):
            loss += summed_loss(batch).item()
            count += int((batch.labels[:, 1:] != IGNORED).sum())
            session.beat()
        stages.train_mode()  # not of the whole model: what is frozen stays in evaluation mode
        return loss / max(1, count)

    with session:
        done = session.track(model=model, optimizer=optimizer, data=batches, stages=stages, settings=settings)
        settings.take()
        print(stages.told(stages.take(done)), flush=True)
        if told := settings.told(done):
            print(told, flush=True)
        for told in start_parts(model, run.model) if not done else ():
            print(told, flush=True)
        while True:
            for step in session.steps(stages.now.end):
                metrics: dict[str, float] = {}
                if training.eval_every and opened.held and step % training.eval_every == 0:
                    with session.phase("evaluating"):  # before the forward pass: if interrupted, it is done again
                        metrics["eval_loss"] = evaluate()

                began = time.perf_counter()
                batch = next(batches)
                loss = torch.zeros((), device=device)
                for micro_batch in batch.micro_batches:
                    share = summed_loss(micro_batch) / batch.targets  # a mean over the global batch, however it is cut
                    share.backward()  # type: ignore[no-untyped-call]
                    loss += share.detach()

                with session.update():
                    if training.clip_norm:
                        norm = torch.nn.utils.clip_grad_norm_(stages.trained(), training.clip_norm)
                        metrics["gradient_norm"] = norm.item()
                    rates = stages.rates
                    metrics |= {"loss": loss.item(), "learning_rate": max(rates.values())}
                    optimizer.step()
                    stages.set_rates(step + 1)
                    optimizer.zero_grad(set_to_none=True)
                    pictures = sum(len(micro_batch.pixels) for micro_batch in batch.micro_batches)
                    metrics["pictures_per_s"] = pictures / (time.perf_counter() - began)
                    about = {"stage": stages.now.name, "learning_rates": rates}
                    session.log(step=step, **metrics, **about, **settings.marked())
                print(f"step {step}", *(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)

            if stages.next is None:
                break
            session.stage_complete(stages.now.name)  # ends here where the next stage has a machine of its own
            print(stages.told(stages.cross()), flush=True)

        def save(folder: Path) -> None:
            model.save(folder)
            tokenizer.save_pretrained(folder / "language")
            if opened.held:
                final = {"step": training.max_steps, "eval_loss": evaluate()}
                model.eval()
                asked = held(max(1, ASKED_AT_THE_END // training.micro_batch))
                with torch.no_grad():
                    answers = report(
                        folder,
                        asked,
                        logits_of,
                        decode=partial(tokenizer.decode, skip_special_tokens=True),
                        trained=_samples(batches),
                        beat=session.beat,
                    )
                final |= {"accuracy": answers.accuracy, "text_only": answers.text_only, "majority": answers.majority}
                (folder / "eval.json").write_text(json.dumps(final) + "\n")
                told = " ".join(f"{name} {value:.4g}" for name, value in final.items() if name != "step")
                print(f"finished at step {training.max_steps} {told}", flush=True)

        session.finish(save)


def _samples(batches: Batches, most: int = 20_000) -> Iterator[Sample]:
    """Some of what was trained on, from each source."""
    for source in batches.sources:
        yield from (source.sample(row) for row in islice(range(len(source)), most))


def main() -> None:
    """The command line: one run file."""
    command.run(train, program="workloads.vlm.train")


if __name__ == "__main__":
    main()
