"""Trains a causal language model on packed text: `python -m workloads.llm.train RUN.yaml`."""

import json
import os
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order; read when CUDA starts

import torch
from spot_training import Session
from torch import Tensor
from torch.nn.functional import cross_entropy

from agent.config import RunConfig
from workloads import command
from workloads.errors import DataError, SettingsError
from workloads.kept import Kept
from workloads.llm.data import IGNORED, Batches, eval_batches, split_rows
from workloads.llm.optimizer import make_optimizer, retune
from workloads.llm.tokens import fingerprint, tokenise
from workloads.models.language import build_model
from workloads.models.part import start_parts
from workloads.stages.schedule import make_scheduler
from workloads.stages.settings import Settings, described


def train(run: RunConfig) -> None:
    """Train `run` to its end, from its newest checkpoint or from the start."""
    if run.model is None or run.data is None:
        raise DataError("the llm trainer needs the sections model and data in the run file")
    if os.environ.get("WORLD_SIZE", "1") != "1" or run.machine.vms > 1:
        raise DataError("the llm trainer runs as one process on one VM: write machine.vms: 1, and leave torchrun out")
    if run.stages:
        raise DataError("the llm trainer has no stages: leave them out; learning_rate and max_steps are in training")
    session = Session.open(run.run_id)  # first: the agent fetches the checkpoint while the rest is made
    data, training = run.data, run.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(training.seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # only costs time

    text = tokenise(data, model_name=run.model.name, kept=Kept.of(run))
    train_rows, eval_rows = split_rows(text.tokens, data.sequence_length, data.eval_fraction)
    batches = Batches(
        train_rows,
        seed=training.seed,
        fingerprint=fingerprint(text, data),
        global_batch=training.global_batch,
        micro_batch=training.micro_batch,
    )
    model = build_model(run.model, vocab_size=text.facts.vocab_size, end_of_text=text.facts.end_of_text).to(device)
    optimizer = make_optimizer(model, training)
    scheduler = make_scheduler(optimizer, training)
    settings = Settings(run, described(model.config))
    params = sum(param.numel() for param in model.parameters())
    print(
        f"{params / 1e6:.1f}M parameters in {training.dtype}, {len(train_rows)} rows of {data.sequence_length} tokens, "
        f"{device.type}, {torch.get_num_threads()} threads",
        flush=True,
    )

    def summed_loss(inputs: Tensor, targets: Tensor) -> Tensor:
        # Weights, gradients and moments are fp32; with bf16 the forward pass's matrix products are not.
        with torch.autocast(device.type, torch.bfloat16, enabled=training.dtype == "bf16"):
            logits = model(input_ids=inputs.to(device), use_cache=False).logits
        flat = logits.float().flatten(0, 1)
        return cross_entropy(flat, targets.to(device).flatten(), ignore_index=IGNORED, reduction="sum")

    @torch.no_grad()
    def evaluate() -> float:
        model.eval()
        loss, count = 0.0, 0
        for inputs, targets in eval_batches(eval_rows, micro_batch=training.micro_batch, count=training.eval_batches):
            loss += summed_loss(inputs, targets).item()
            count += int((targets != IGNORED).sum())
            session.beat()
        model.train()
        return loss / count

    with session:
        done = session.track(model=model, optimizer=optimizer, scheduler=scheduler, data=batches, settings=settings)
        settings.take()
        for told in () if done else start_parts(model, run.model):
            print(told, flush=True)
        if done > training.max_steps:
            raise SettingsError(
                f"training.max_steps is {training.max_steps}, and {done} steps are done: write {done} or more, or "
                f"start a new run under another run_id"
            )
        retune(optimizer, scheduler, training)
        if told := settings.told(done):
            print(told, flush=True)
        for step in session.steps(training.max_steps):
            metrics: dict[str, float] = {}
            if training.eval_every and len(eval_rows) and step % training.eval_every == 0:
                with session.phase("evaluating"):  # before the forward pass: if interrupted, it is simply done again
                    metrics["eval_loss"] = evaluate()

            began = time.perf_counter()
            batch = next(batches)
            loss = torch.zeros((), device=device)
            for inputs, targets in batch.micro_batches:
                share = summed_loss(inputs, targets) / batch.targets  # a mean over the global batch, however it is cut
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()

            with session.update():
                if training.clip_norm:
                    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
                    metrics["gradient_norm"] = norm.item()
                metrics |= {"loss": loss.item(), "learning_rate": float(scheduler.get_last_lr()[0])}
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
                metrics["tokens_per_s"] = batch.targets / (time.perf_counter() - began)
                session.log(step=step, **metrics, **settings.marked())
            print(f"step {step}", *(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)

        def save(folder: Path) -> None:
            model.save_pretrained(folder)
            text.save_tokenizer(folder)
            if training.eval_every and len(eval_rows):
                final = {"step": training.max_steps, "eval_loss": evaluate()}
                (folder / "eval.json").write_text(json.dumps(final) + "\n")
                print(f"finished at step {training.max_steps} eval_loss {final['eval_loss']:.4g}", flush=True)

        session.finish(save)


def main() -> None:
    """The command line: one run file."""
    command.run(train, program="workloads.llm.train")


if __name__ == "__main__":
    main()
