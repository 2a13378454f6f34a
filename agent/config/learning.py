"""What is trained, on what, and how."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.pictures import Pictures
from agent.config.places import HuggingFaceName, Source
from agent.config.refusal import Many, Refusal, Section
from agent.config.units import Steps

Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, lt=10, allow_inf_nan=False)]


class Tokenizer(Section):
    """Where the tokens come from: an existing tokenizer, or a new one trained on the run's text."""

    name: HuggingFaceName | None = None
    """Hugging Face name, or a folder that starts with `.`, `/` or `~`. Default: null."""

    train_vocab_size: int | None = Field(default=None, ge=258, le=1_000_000)
    """Train a byte-level BPE of this size on the data. Unit: tokens. Default: null."""

    def refusals(self) -> Iterator[Refusal]:
        if (self.name is None) == (self.train_vocab_size is None):
            given = "neither" if self.name is None else "both"
            yield Refusal(
                (),
                f"{given} of name and train_vocab_size given",
                "write name: HUGGING-FACE-NAME, or train_vocab_size: 4096",
            )


class Data(Section):
    """The text to train on, or the pictures with text."""

    source: Source
    """A folder, gs://BUCKET/PREFIX or hf://DATASET; `stdlib`, the sources and documentation of the running Python's
    standard library, real text that is on every machine; pictures with questions that are composed on the machine
    (docs/vlm.md), `scenes:stamps`, `scenes:emoji` or `scenes:digits`. Default: required."""

    include: Annotated[Many[str], Field(min_length=1)] = ("**/*.txt", "**/*.md", "**/*.rst", "**/*.py", "**/*.jsonl")
    """kind `llm`: files of a folder or bucket to read, as glob patterns.
    Default: ["**/*.txt", "**/*.md", "**/*.rst", "**/*.py", "**/*.jsonl"]."""

    text_field: str = "text"
    """kind `llm`: the field that holds the text in JSON lines and in Hugging Face datasets. Default: text."""

    tokenizer: Tokenizer | None = None
    """The tokenizer. Default: null (the model's own, which only a model given by name has)."""

    sequence_length: int = Field(default=1024, ge=2)
    """Tokens in one sequence. Unit: tokens. Default: 1024."""

    eval_fraction: float = Field(default=0.01, ge=0, le=0.5)
    """Share of the text, or of the records, that is kept for evaluation, 0 to 0.5. Unit: fraction. Default: 0.01."""

    pictures: Pictures | None = None
    """kinds `vlm` and `arr-coc`: pictures with text. Default: null (train.jsonl in the source)."""

    def refusals(self) -> Iterator[Refusal]:
        if self.pictures and self.pictures.eval_records and "eval_fraction" in self.model_fields_set:
            yield Refusal(
                ("eval_fraction",), "pictures.eval_records says what to evaluate on", "leave one of the two out"
            )


class Training(Section):
    """The optimizer's side of a run."""

    global_batch: int = Field(default=32, ge=1)
    """Sequences in one optimizer step, over all GPUs and VMs. Unit: sequences. Default: 32."""

    micro_batch: int = Field(default=8, ge=1)
    """Sequences in one forward pass of one GPU; gradients add up to global_batch. Unit: sequences. Default: 8."""

    max_steps: Steps = Field(default=1000, ge=1)
    """The run is complete after this many optimizer steps. Unit: steps. Default: 1000."""

    learning_rate: Rate = 3e-4
    """AdamW's learning rate at its highest. Unit: none. Default: 0.0003."""

    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """The learning rate after warm-up: `cosine` falls at once, `wsd` stays and falls at the end. Default: cosine."""

    warmup_steps: Steps = Field(default_factory=lambda given: int(given["max_steps"]) // 20, ge=0)
    """The learning rate rises for this long. Unit: steps. Default: a twentieth of max_steps."""

    min_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """The learning rate at the end, as a share of learning_rate. Unit: fraction. Default: 0.1."""

    weight_decay: float = Field(default=0.1, ge=0, lt=10)
    """AdamW's weight decay. Unit: none. Default: 0.1."""

    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment. Unit: none. Default: [0.9, 0.95]."""

    clip_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm; null lets them be. Unit: none. Default: 1.0."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Where every random number of the run starts. Unit: none. Default: 0."""

    dtype: Literal["bf16", "fp32"] = "bf16"
    """What the forward and backward passes compute in; weights and moments stay fp32. Default: bf16."""

    eval_every: Steps | None = Field(default=100, ge=1)
    """From one evaluation to the next; null never evaluates. Unit: steps. Default: 100."""

    eval_batches: int = Field(default=8, ge=1)
    """Micro batches in one evaluation. Unit: batches. Default: 8."""

    def refusals(self) -> Iterator[Refusal]:
        if self.global_batch % self.micro_batch:
            below = self.global_batch - self.global_batch % self.micro_batch
            near = [n for n in (below, below + self.micro_batch) if n]
            yield Refusal(
                ("global_batch",),
                f"{self.global_batch} is not a multiple of micro_batch, {self.micro_batch}",
                f"write global_batch: {' or '.join(map(str, near))}, or another micro_batch",
            )
        if self.warmup_steps >= self.max_steps > 1:
            yield Refusal(
                ("warmup_steps",),
                f"the warm-up of {self.warmup_steps} steps never ends: the run has {self.max_steps}",
                f"write warmup_steps: {self.max_steps // 20}, or more max_steps",
            )
