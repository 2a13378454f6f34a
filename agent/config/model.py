"""The model that is trained: a language model, or a vision encoder, a connector and a language model."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from agent.config.arr_coc import ArrCoc
from agent.config.places import HuggingFaceName, StartFrom
from agent.config.refusal import Refusal, Section


class Language(Section):
    """A language model: either one that exists, by name, or a new one, by its configuration."""

    name: HuggingFaceName | None = None
    """Hugging Face name, or a folder that starts with `.`, `/` or `~`; its weights are trained on. Default: null."""

    config: dict[str, Any] | None = None
    """A transformers configuration with its model_type: training starts from random weights. Default: null."""

    from_: StartFrom | None = Field(default=None, alias="from")
    """A checkpoint of another run, gs://BUCKET/PREFIX/RUN_ID@STEP: this part begins with its weights there, whose
    shapes must be the same. Default: null."""

    def refusals(self) -> Iterator[Refusal]:
        yield from refused_origin(self, "qwen3")


class Vision(Section):
    """A vision encoder of the SigLIP family: either one that exists, by name, or a new one, by its configuration."""

    name: HuggingFaceName | None = None
    """Hugging Face name, or a folder that starts with `.`, `/` or `~`; its weights are trained on. Default: null."""

    config: dict[str, Any] | None = None
    """A transformers configuration with its model_type: training starts from random weights. Default: null."""

    from_: StartFrom | None = Field(default=None, alias="from")
    """A checkpoint of another run, gs://BUCKET/PREFIX/RUN_ID@STEP: this part begins with its weights there, whose
    shapes must be the same. Default: null."""

    def refusals(self) -> Iterator[Refusal]:
        yield from refused_origin(self, "siglip_vision_model")


class Connector(Section):
    """What makes tokens of the language model out of the encoder's patches."""

    kind: Literal["ovis", "mlp"] = "ovis"
    """`ovis`: each token is a mean of the rows of a visual embedding table, weighted by a softmax; `mlp`: a projection
    of two layers, as LLaVA's. Default: ovis."""

    merge: int = Field(default=2, ge=1, le=4)
    """Side of the square of patches that become one token: 2 makes a quarter as many tokens. Unit: patches.
    Default: 2."""

    visual_words: int | None = Field(default=None, ge=8, le=1_000_000)
    """kind `ovis`: rows of the visual embedding table. Unit: rows. Default: null (65536, as Ovis has)."""

    from_: StartFrom | None = Field(default=None, alias="from")
    """A checkpoint of another run, gs://BUCKET/PREFIX/RUN_ID@STEP: this part begins with its weights there, whose
    shapes must be the same. Default: null."""

    def refusals(self) -> Iterator[Refusal]:
        if self.kind != "ovis" and self.visual_words is not None:
            yield Refusal(("visual_words",), f"kind {self.kind} has no visual embedding table", "leave it out")


class Model(Language):
    """The model. A language model is named here; one that sees has its parts by themselves."""

    vision: Vision | None = None
    """The vision encoder. Default: null (kind `vlm` needs it)."""

    language: Language | None = None
    """The language model that sees. Default: null (kind `vlm` needs it)."""

    connector: Connector | None = None
    """What is between the two. Default: null (an Ovis head with its visual embedding table)."""

    arr_coc: ArrCoc | None = None
    """Kind `arr-coc`: how an image is shared out among tokens. Default: null."""

    @property
    def starts(self) -> dict[str, str]:
        """The parts that begin with another run's weights, and where those are; "" is a language model by itself."""
        parts = {"vision": self.vision, "connector": self.connector, "language": self.language, "": self}
        return {name: part.from_ for name, part in parts.items() if part is not None and part.from_ is not None}

    @property
    def sees(self) -> bool:
        """Whether it is given by its parts."""
        return bool({"vision", "language", "connector"} & self.model_fields_set)

    @property
    def text(self) -> Language:
        """The language model, wherever it is named."""
        return self.language or self

    def refusals(self) -> Iterator[Refusal]:
        if not self.sees:
            yield from refused_origin(self, "qwen3")
            return
        for key, value in (("name", self.name), ("config", self.config), ("from", self.from_)):
            if value is not None:
                fix = f"write language.{key}, or leave it out"
                yield Refusal((key,), "the model is given by its parts already", fix)
        for key, what in (("vision", "encoder of its images"), ("language", "language model")):
            if getattr(self, key) is None:
                yield Refusal((), f"a model by its parts needs the {what}", f"add {key}: {{name: HUGGING-FACE-NAME}}")


def refused_model(kind: str, model: Model, max_steps: int) -> Iterator[Refusal]:
    """What kind `arr-coc` needs of the section, and what no other kind reads of it."""
    if kind != "arr-coc":
        if model.arr_coc is not None:
            yield Refusal(("model", "arr_coc"), f"kind {kind} does not use it", "leave it out, or write kind: arr-coc")
        return
    if not model.sees:
        fix = "write vision: {name: ...} and language: {name: ...}"
        yield Refusal(("model",), "kind arr-coc trains a language model that sees", fix)
    if model.connector is not None:
        fix = "leave it out: arr_coc has width, layers and heads"
        yield Refusal(("model", "connector"), "kind arr-coc has an adapter in its place", fix)
    if model.arr_coc is None:
        yield Refusal(("model",), "kind arr-coc needs to know what an image may cost", "add arr_coc: {budgets: [64]}")
    elif len(model.arr_coc.budgets) > 1 and model.arr_coc.whole_steps >= max_steps:
        yield Refusal(
            ("model", "arr_coc", "whole_steps"),
            f"the run has {max_steps} steps, and no step has a smaller budget than the largest",
            "write fewer of them, or that budget alone",
        )


def refused_origin(given: Language | Vision, example: str) -> Iterator[Refusal]:
    """A part comes from exactly one place."""
    if given.name is None and given.config is None:
        yield Refusal((), "no model is given", "write name: HUGGING-FACE-NAME, or config: {model_type: ...}")
    elif given.name is not None and given.config is not None:
        yield Refusal(
            ("config",),
            "name and config are both given",
            "leave out config to train the named model, or name to train a new one",
        )
    elif given.config is not None and not isinstance(given.config.get("model_type"), str):
        yield Refusal(("config",), "it has no model_type", f'add the architecture, such as model_type: "{example}"')
