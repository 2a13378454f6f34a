"""Pictures with text: where they are, how they become batches, what happens to those that can't be read."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.places import SCENES
from agent.config.refusal import Many, Refusal, Section

Glob = Annotated[str, Field(min_length=1)]
Records = Annotated[Many[Glob], Field(min_length=1)]


class Part(Section):
    """A part of a mixture."""

    records: Records
    """Files of records of data.source, as glob patterns. Default: required."""

    weight: float = Field(default=1.0, gt=0, le=1_000_000, allow_inf_nan=False)
    """How many samples are drawn of it, in proportion to the other parts. Unit: none. Default: 1."""


class Pictures(Section):
    """kinds `vlm` and `arr-coc`: pictures with questions and answers."""

    records: Records = ("train.jsonl",)
    """Files of a folder or bucket to read, as glob patterns: .jsonl and .json, with pictures named relative to the
    file, and WebDataset's .tar shards, with pictures inside. Default: ["train.jsonl"]."""

    eval_records: Many[Glob] = ()
    """Files to evaluate on. Default: [] (data.eval_fraction of the records is kept for it)."""

    mixture: Many[Part] = ()
    """Parts of data.source that are drawn from by weight, each gone through in an order of its own. Default: [] (all
    records alike)."""

    pack: bool = True
    """Several short samples share a row of data.sequence_length, and none sees the others. Default: true."""

    augment: Literal["none", "color", "crop"] = "none"
    """`color` changes brightness, contrast and saturation, `crop` also cuts away up to a tenth of the sides, so that a
    record's `region` moves with it: by seed, epoch and sample. Default: none."""

    workers: int = Field(default=2, ge=0, le=256)
    """Processes that read and decode; 0 does it in the trainer's own. It may change at any start. Unit: processes.
    Default: 2."""

    reads_at_once: int = Field(default=16, ge=1, le=256)
    """Pictures that one worker reads at the same time. Unit: pictures. Default: 16."""

    cache_gb: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """source gs://: room on the VM's disk for pictures that were read, in SPOT_CACHE_DIR; 0 keeps none. Unit: GB.
    Default: null (20)."""

    on_broken: Literal["fail", "skip"] = "fail"
    """A picture that is not there or can't be decoded stops the run by name, or its sample is left out by name. Errors
    that may pass are neither: the read is tried again. Default: fail."""

    broken_limit: int | None = Field(default=None, ge=1)
    """on_broken skip: so many samples may be left out, each time counted, before the run stops. Unit: samples.
    Default: null (100)."""

    def refusals(self) -> Iterator[Refusal]:
        if self.broken_limit is not None and self.on_broken != "skip":
            yield Refusal(
                ("broken_limit",), "on_broken: fail leaves nothing out", "leave it out, or write on_broken: skip"
            )
        if self.mixture and "records" in self.model_fields_set:
            yield Refusal(("records",), "each part of the mixture names its own records", "leave records out")


def refused_pictures(kind: str, source: str, given: set[str], pictures: Pictures | None) -> Iterator[Refusal]:
    """What a trainer's kind doesn't read of the section data; `given`: the keys that were written."""
    if kind == "llm":
        if "pictures" in given:
            yield Refusal(("data", "pictures"), "kind llm reads text alone", "leave it out, or write kind: vlm")
        if source in SCENES:
            yield Refusal(("data", "source"), "kind llm reads text alone", "write a source of text, or kind: vlm")
        return
    for key in ("include", "text_field"):
        if key in given:
            yield Refusal(
                ("data", key), f"kind {kind} does not use it", "leave it out; data.pictures.records names the files"
            )
    if source == "stdlib":
        yield Refusal(
            ("data", "source"), "there are no pictures in the standard library", "write a folder, gs://... or hf://..."
        )
    written = pictures.model_fields_set if pictures else set()
    if source.startswith("hf://"):
        for key in sorted(written & {"records", "eval_records", "mixture"}):
            yield Refusal(("data", "pictures", key), "a Hugging Face data set has no files of records", "leave it out")
    if "cache_gb" in written and not source.startswith("gs://"):
        yield Refusal(("data", "pictures", "cache_gb"), f"{source} is not read over a network", "leave it out")
