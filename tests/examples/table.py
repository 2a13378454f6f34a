"""`python -m tests.examples.table`: renews docs/frameworks.md and the examples' READMEs from the rows below."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "workloads" / "examples"
TABLE = ROOT / "docs" / "frameworks.md"


@dataclass(frozen=True)
class Row:
    """`what` the example is; `lines`: what is added to a program that trains already; `needs`: modules."""

    name: str
    what: str
    lines: str
    needs: tuple[str, ...] = ()
    limits: str = ""
    exact: bool = True

    @property
    def folder(self) -> Path:
        return EXAMPLES / self.name

    @property
    def run_id(self) -> str:
        return self.name.replace("_", "-")

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


ROWS = (
    Row("plain", "A loop of one's own", "`Session.open()`, `track(...)`, `for step in session.steps(n)`"),
    Row("gan", "A GAN: two models, two optimizers", "the same"),
    Row("nanogpt", "A GPT as nanoGPT trains it", "the same"),
    Row(
        "huggingface", "Hugging Face `Trainer`", "`huggingface.session(trainer)`",
        ("transformers", "accelerate"),
        "one GPU; no `load_best_model_at_end`; a stream must not end before `max_steps`; refused otherwise",
    ),
    Row(
        "trl", "TRL's `SFTTrainer`", "`huggingface.session(trainer)`", ("trl", "datasets"),
        "as for `Trainer`; DPO and GRPO (generation by transformers) too; vLLM untried",
    ),
    Row(
        "accelerate", "A loop with Accelerate", "`accelerate.session(accelerator)`, `epochs(n)`, `batches(loader)`",
        ("accelerate",), "one process; data with a length",
    ),
    Row(
        "lightning", "Lightning's `Trainer`", "`callbacks=[SpotCallback()]`", ("lightning",),
        "one device; one loader with a length; a notice waits for the end of a validation",
    ),
    Row(
        "huggingface_jit", "Hugging Face `Trainer` as it is",
        "none: its `enable_jit_checkpoint`, and `notice_signal: SIGTERM`", ("transformers", "accelerate"),
        "it saves 3 s after the notice at the soonest, and goes back to its last save without one; not bit for bit: it "
        "may save behind a step's forward pass, whose random numbers are drawn again", exact=False,
    ),
    Row(
        "lightning_exception", "Lightning's `Trainer` as it is",
        "none: its `OnExceptionCheckpoint`, and `notice_signal: SIGTERM`", ("lightning",),
        "without a notice it goes back to its last save; not bit for bit: within an epoch it begins with the epoch's "
        "first rows again", exact=False,
    ),
    Row(
        "dcp", "torch's distributed checkpoint (DCP)",
        "`StorageWriter(folder)`, `StorageReader(folder)`; a signal handler",
        limits="what its state dict holds; one machine",
    ),
    Row("shell", "A shell script", "none: a trap that saves", limits="what its state file holds"),
    Row("perl", "A program in another language", "none: a signal handler that saves", limits="the same"),
)  # fmt: skip
_INTRODUCTION = """\
# Frameworks

Each row is a folder in [`workloads/examples`](../workloads/examples) that you can copy, and a test: it is preempted
three times on the local cloud, and compared with itself undisturbed: every logged number and every bit of the result
are the same, unless a limit says otherwise (then it goes on from each save, and ends). `make examples` runs all of
them; `python -m tests.examples.table` writes this page. What becomes of single features (accumulation, workers,
evaluation, streams) is in [what-resumes.md](what-resumes.md#frameworks).

| example | what you add | limits |
|---|---|---|
"""


def table() -> str:
    cells = [(f"[{row.what}](../workloads/examples/{row.name})", row.lines, row.limits) for row in ROWS]
    return _INTRODUCTION + "".join(f"| {' | '.join(cell)} |\n" for cell in cells)


def readme(row: Row) -> str:
    """The few lines that lie in the example's folder."""
    needs = "" if not row.needs else f" It needs {' and '.join(row.needs)}."
    exact = "it ends with the same numbers and the same bits as undisturbed"
    own = "it goes on from its newest save; docs/frameworks.md says why not bit for bit"
    promise = f"Preempted at any moment, {exact if row.exact else own}."
    return f"# {row.what}\n\n`spot run {row.folder.relative_to(ROOT)}/run.yaml`.{needs} {promise}\n"


if __name__ == "__main__":
    TABLE.write_text(table())
    for one in ROWS:
        (one.folder / "README.md").write_text(readme(one))
