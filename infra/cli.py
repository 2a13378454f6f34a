"""`spot`, the operator's command."""

import json
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from spot_training.protocol import tell
from typer.core import TyperCommand

from agent.config import RunConfig, RunFileError
from agent.config.program import not_promised
from infra.operate import checkpoints
from infra.operate import commands as cloud_commands
from infra.operate.experiments import command as ablate_command
from infra.operate.reference import draw_fields
from infra.operate.rehearse import command as rehearse_command
from infra.operate.run_file import BAD_RUN_FILE, RunFile, load, read
from infra.operate.run_file import tell as tell_mistakes
from infra.operate.status import command as status_command
from infra.operate.suggest import Commands
from infra.operate.track import command as track_command
from infra.operate.validation import command as validate_command

_DRILL_TIMEOUT_S = 180.0

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_show_locals=False)


class _HelpWithFields(TyperCommand):
    """A command whose --help also explains the run file."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        Console().print(draw_fields())


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spot {version()}")
        raise typer.Exit


def version() -> str:
    """Of this checkout, or of the package that is installed."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    if project.exists():
        return str(tomllib.loads(project.read_text())["project"]["version"])
    return metadata.version("spot-training")


@app.callback(
    epilog="Exit status: 0 done, 1 could not be done, 2 a mistake in the run file or on the command line; "
    "those of `spot run` are in docs/commands.md."
)
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Train on Spot VMs: a run file says what, the agent sees to it that a preemption loses nothing."""


@app.command()
def check(
    run_files: Annotated[list[Path], typer.Argument(metavar="RUN.yaml...", help="The run files.")],
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Say whether run files can be used, and name every mistake in them."""
    found, bad = [], False
    for run_file in run_files:
        about: dict[str, Any] = {"file": str(run_file), "mistakes": []}
        found.append(about)
        try:
            run = read(run_file, to_train=True)
        except RunFileError as error:
            bad = True
            if not as_json:
                tell_mistakes(error)
            about["mistakes"] = [
                {"line": each.line, "key": each.path, "reason": each.reason, "fix": each.fix} for each in error.mistakes
            ]
        else:
            note = not_promised(run)
            if not as_json:
                typer.echo(f"{run_file}: run {run.run_id} ({run.workload.kind}) can be used")
                if note:
                    typer.echo(f"Note: {note}")
            about |= {"run_id": run.run_id, "kind": run.workload.kind} | ({"note": note} if note else {})
    if as_json:
        typer.echo(json.dumps(found))
    if bad:
        raise typer.Exit(BAD_RUN_FILE)


@app.command()
def fields() -> None:
    """List the keys of a run file with unit, default and meaning."""
    Console().print(draw_fields())


@app.command()
def events() -> None:
    """List what the agent says in the journal: every event, its fields, and commands that answer questions."""
    from infra.operate.events import draw_events  # noqa: PLC0415, only this command needs it

    Console().print(draw_events(), soft_wrap=False)


@app.command()
def schema() -> None:
    """Print the run file's JSON schema, for editors and other tools."""
    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))


@app.command(cls=_HelpWithFields)
def run(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the local cloud's disks, bucket and logs. Default: out/RUN_ID.")
    ] = None,
    preempt_every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Take the VM away so often, as Compute Engine does: 2m.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take it away as a script says: docs/commands.md.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: what there is is moved aside, not deleted.")
    ] = False,
    tied: Annotated[
        bool, typer.Option("--tied", hidden=True, help="Save and end with standard input: for who starts this.")
    ] = False,
) -> None:
    """Train a run on the local cloud, under the agent, on this machine; again: go on where it was.

    Ctrl-C saves and ends. Exit status: docs/commands.md.
    """
    described = load(run_file, to_train=True)
    if described.ablations is not None:
        typer.echo(f"its ablations are left out: spot ablate {run_file} trains them", err=True)
    from infra.local.out_folder import CannotRun  # noqa: PLC0415, only this command needs the local cloud
    from infra.local.run import run_once  # noqa: PLC0415
    from infra.local.strikes import script_of  # noqa: PLC0415

    try:
        script = script_of(preempt_every, events, bucket=described.checkpoint.bucket)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        raise typer.Exit(run_once(run_file, out=out, fresh=fresh, script=script, tied=tied))
    except CannotRun as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def saved(
    path: Annotated[
        str, typer.Argument(help="What is whole, in the run's checkpoint folder. Default: the folder.")
    ] = ".",
    step: Annotated[int | None, typer.Option(help="The program's own step.")] = None,
) -> None:
    """Say, from a program of kind `command`, that its save is whole. `infra.start` answers it, without all this."""
    raise typer.Exit(tell.main([path, *(["--step", str(step)] if step is not None else [])]))


@app.command()
def drill(
    run_file: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN.yaml]", help="On your machine: have one VM of this run preempted, for real."),
    ] = None,
    vm: cloud_commands.OneVm = None,
    yes: cloud_commands.Yes = False,
    state_dir: Annotated[Path, typer.Option(envvar="SPOT_STATE_DIR", help="The agent's folder on this VM.")] = Path(
        "/run/spot-agent"
    ),
    stop: Annotated[bool, typer.Option("--exit", help="Be preempted for real: save, then stop the trainer.")] = False,
) -> None:
    """Rehearse a preemption on this VM: save as if a notice had come, and say how long each phase took.

    With RUN.yaml, on the operator's machine: Compute Engine takes one Spot VM of the run away.
    """
    if run_file is not None:
        cloud_commands.preempt_one(run_file, vm=vm, yes=yes)
        return
    from spot_training.protocol.channel import Connection  # noqa: PLC0415, only this command talks to an agent
    from spot_training.protocol.messages import Drill, DrillReport  # noqa: PLC0415

    console = Console()
    try:
        connection = Connection.open(state_dir / "agent.sock", timeout=5.0)
        connection.send(Drill(exit=stop))
        report, _ = connection.receive(timeout=_DRILL_TIMEOUT_S)
    except OSError as error:
        console.print(f"no agent answers at {state_dir / 'agent.sock'} ({error}): is spot-agent running on this VM?")
        raise typer.Exit(1) from None
    assert isinstance(report, DrillReport)
    if report.error:
        console.print(report.error, style="bold red")
        raise typer.Exit(1)
    for phase, seconds in report.phases_s.items():
        console.print(f"{phase:16} {seconds * 1000:8.1f} ms")
    console.print("the run trains on" if not stop else "the agent is saving, and stops the trainer then")


rehearse_command.register(app)
ablate_command.register(app)
validate_command.register(app)
status_command.register(app)
app.add_typer(checkpoints.app, name="checkpoints")
track_command.register(app)
cloud_commands.register(app)
