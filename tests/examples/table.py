"""`python -m tests.examples.table`: renews docs/frameworks.md and the examples' READMEs from the rows below."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "workloads" / "examples"
TABLE = ROOT / "docs" / "frameworks.md"


@dataclass(frozen=True)
class Row:
    """`what` the example is; `lines`: what is added to a program that trains already; `needs`: modules."""

    name: str
    what: str
    lines: str
    promise: Literal["exact", "goes on"]
    needs: tuple[str, ...] = ()
    limits: str = ""

    @property
    def folder(self) -> Path:
        return EXAMPLES / self.name

    @property
    def kind(self) -> str:
        return str(yaml.safe_load((self.folder / "run.yaml").read_text())["workload"]["kind"])

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


ROWS = (
    Row("plain", "A loop of one's own", "`Session.open()`, `track(...)`, `for step in session.steps(n)`", "exact"),
    Row("gan", "A GAN: two models, two optimizers", "the same", "exact"),
    Row("nanogpt", "A GPT as nanoGPT trains it", "the same", "exact"),
    Row(
        "huggingface", "Hugging Face `Trainer`, and TRL's on it", "`huggingface.session(trainer)`", "exact",
        ("transformers", "accelerate"),
        "one GPU; no `load_best_model_at_end`; a stream must not end before `max_steps`; refused otherwise",
    ),
    Row(
        "accelerate", "A loop with Accelerate", "`accelerate.session(accelerator)`, `epochs(n)`, `batches(loader)`",
        "exact", ("accelerate",), "one process; data with a length",
    ),
    Row(
        "lightning", "Lightning's `Trainer`", "`callbacks=[SpotCallback()]`", "exact", ("lightning",),
        "one device; one loader with a length; a notice waits for the end of a validation",
    ),
    Row(
        "huggingface-no-code", "Hugging Face `Trainer` as it is", "none: `enable_jit_checkpoint` and `notice_signal: "
        "SIGTERM`", "goes on", ("transformers", "accelerate"),
        "saves 3 s after the notice, between two steps; as exact as the Trainer's own `resume_from_checkpoint`",
    ),
    Row("shell", "A shell script", "none: a trap that saves", "exact", (), "its own state file holds all of its state"),
    Row("perl", "A program in another language", "none: a signal handler that saves", "exact", (), "the same"),
)  # fmt: skip
_INTRODUCTION = """\
# Frameworks

Each row is a folder in [`workloads/examples`](../workloads/examples) that you can copy, and a test: it is preempted
three times on the local cloud, and compared with itself undisturbed. *exact*: every logged number and every bit of the
result are the same. *goes on*: it ends with its last step, from its own checkpoints. `make examples` runs all of them;
this page is written by `python -m tests.examples.table`. What becomes of single features (accumulation, workers,
evaluation, streams) is in [what-resumes.md](what-resumes.md#frameworks).

| example | what you add | promise | limits |
|---|---|---|---|
"""


def table() -> str:
    lines = [
        f"| [{row.what}](../workloads/examples/{row.name}) | {row.lines} | {row.promise} | {row.limits} |\n"
        for row in ROWS
    ]
    return _INTRODUCTION + "".join(lines)


def readme(row: Row) -> str:
    """The few lines that lie in the example's folder."""
    needs = "" if not row.needs else f" It needs {' and '.join(row.needs)}."
    promise = {
        "exact": "Preempted at any moment, it ends with the same numbers and the same bits as undisturbed.",
        "goes on": "Preempted, it goes on from its own newest checkpoint.",
    }[row.promise]
    return f"# {row.what}\n\n`spot run {row.folder.relative_to(ROOT)}/run.yaml`.{needs} {promise}\n"


if __name__ == "__main__":
    TABLE.write_text(table())
    for one in ROWS:
        (one.folder / "README.md").write_text(readme(one))
