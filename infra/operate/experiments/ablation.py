"""The experiments of one run file: trained here, or followed in the cloud, and what came of them written down."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from agent.config import RunConfig
from infra.local.asked_to_stop import heard
from infra.local.out_folder import OutFolder
from infra.local.run import NOT_SAVED
from infra.operate.board import Board
from infra.operate.child import Child
from infra.operate.console import console
from infra.operate.experiments import plot, table, view
from infra.operate.experiments.grid import Experiment, experiments_of
from infra.operate.experiments.side_by_side import SideBySide
from infra.operate.experiments.table import Row
from infra.operate.outcome import read_outcome
from infra.operate.status.standing import Reader

_LOOK_AT_THE_CLOUD_S = 30.0
_ENDS = ("complete", "gave up")


@dataclass
class Ablation:
    """`folder`: of all of it. `again`: the command that goes on with it. `quiet`: nothing on standard output meanwhile.

    All but the constructor raises StoreError and NewerFormatError.
    """

    run: RunConfig
    folder: Path
    again: str
    cloud: bool = False
    quiet: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    """The last words of each experiment that has failed."""

    def __post_init__(self) -> None:
        self.experiments = experiments_of(self.run, self.folder.resolve())

    def train(self, *, at_once: int, threads: int, strikes: Sequence[str], fresh: bool) -> int:
        """Train what is not done yet. Returns the exit status, 0 unless somebody asked to stop. Raises CannotRun."""

        def start(each: Experiment) -> Child:
            return Child.start(each.run_file, folder=each.folder, log=each.log, threads=threads, strikes=strikes)

        with heard() as asked, OutFolder.opened(self.folder, self.run.run_id, fresh=fresh), self._board() as board:
            left = [each for each in self.experiments if not _is_done(each, board)]
            if left:
                of = f"{len(left)} of {len(self.experiments)} experiments to train"
                board.say(f"{of}, {min(at_once, len(left))} at once")
            together = SideBySide(left, at_once, start, board, asked)
            together.run()
        self.failed = together.words
        ends = together.statuses.values()
        if not asked or (len(ends) == len(left) and not any(ends)):  # all came to their end meanwhile
            return 0
        return NOT_SAVED if NOT_SAVED in ends else asked.status

    def follow(self) -> None:
        """Until each of them is at its end, by the bucket alone."""
        readers = {each.name: Reader(each.store(cloud=True), each.name) for each in self.experiments}
        with self._board() as board:
            while readers:
                for name, reader in list(readers.items()):
                    standing = reader.standing()
                    board.note(name, standing.state, standing)
                    if standing.state in _ENDS:
                        del readers[name]
                time.sleep(_LOOK_AT_THE_CLOUD_S if readers else 0)

    def rows(self) -> list[Row]:
        """What came of each so far."""
        found = []
        for each in self.experiments:
            outcome = read_outcome(each.store(cloud=self.cloud), each.name)
            gave_up = outcome.why if outcome.standing.state == "gave up" else ""
            found.append(Row(each, outcome, self.failed.get(each.name, gave_up)))
        return found

    def write(self, rows: Sequence[Row], asked: Sequence[str]) -> str:
        """Table and plot into the folder, the table on the screen. `asked`: the metrics to show. Returns the JSON."""
        metrics, groups = table.metrics_of(rows, asked), table.by_seeds(rows)
        drawn = plot.svg(groups, metrics[0], title=f"Ablations of {self.run.run_id}") if metrics else ""
        self.folder.mkdir(parents=True, exist_ok=True)
        if drawn:
            (self.folder / "ablations.svg").write_text(drawn)
        text = table.markdown(self.run.run_id, rows, metrics, again=self.again, plot="ablations.svg" if drawn else "")
        (self.folder / "ablations.md").write_text(text)
        made = table.as_json(self.run.run_id, rows, metrics)
        (self.folder / "ablations.json").write_text(made)
        if not self.quiet:
            shown = console()
            shown.print(view.draw(groups, metrics))
            for row in rows:
                if row.failed:
                    said = f"failed: {row.experiment.name}: {row.failed}"
                    shown.print(said, markup=False, style="bold red", soft_wrap=True)
            shown.print(f"{self.folder}/ablations.md, .json{' and .svg' if drawn else ''}", soft_wrap=True)
        return made

    def _board(self) -> Board:
        labels = {each.name: table.label_of(each.values) for each in self.experiments}
        return Board(labels, Console(stderr=True, highlight=False) if self.quiet else console())


def _is_done(experiment: Experiment, board: Board) -> bool:
    standing = Reader(experiment.store(cloud=False), experiment.name).standing()
    if standing.state != "complete":
        return False
    board.note(experiment.name, "complete", standing)
    if changed := experiment.changed_since():
        board.say(
            f"{experiment.name} is done, with another run file ({', '.join(changed)} changed since): "
            "--fresh trains all of them again"
        )
    return True
