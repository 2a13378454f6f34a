"""`spot`'s commands for the cloud: they read the command line, and say how it went."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent.store import StoreError
from agent.store.formats import NewerFormatError
from infra.operate.api import ApiError, CloudApi, NotLoggedIn
from infra.operate.deploy import PROJECT_WIDE, Declined, Operation
from infra.operate.groups import resize, sizes, to_start
from infra.operate.journal import SEVERITIES, Wanted, gcloud_logging, journalctl
from infra.operate.programs import ProgramError, find, hand_over, require
from infra.operate.run_file import RunFile, load
from infra.operate.stacks import Terraform
from infra.operate.vms import choose_vm, open_shell, preempt
from infra.stacks.deployment import Deployment, NotDeployable

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Out = Annotated[Path, typer.Option(help="Folder that the stacks are written to.")]
With = Annotated[str | None, typer.Option("--with", help="terraform, tofu, cdktf or cdktn. Default: what is there.")]
OneVm = Annotated[str | None, typer.Option("--vm", help="The VM's name. Default: the first that runs.")]
_OUT = Path("cdktf.out")
_LOGGING_S = 120.0


def register(app: typer.Typer) -> None:
    for command in (doctor, synth, deploy, diff, start, stop, destroy, logs, ssh):
        app.command()(command)


def doctor(
    run_file: Annotated[
        Path | None, typer.Argument(metavar="[RUN.yaml]", help="The run file. Without it: this machine's tools only.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Check tools, login, project, APIs, quota, machine and buckets, and say what to do about each; changes nothing."""
    from infra.operate.doctor import examination, report  # noqa: PLC0415, clients that only this needs

    findings = examination.examine(_deployment(run_file) if run_file else None)
    if as_json:
        typer.echo(report.as_json(findings))
    else:
        report.show(Console(), findings)
    raise typer.Exit(1 if report.has_problems(findings) else 0)


def synth(run_file: RunFile, out: Out = _OUT) -> None:
    """Write the stacks as Terraform's JSON and check them, without any cloud."""
    with _told():
        _operation(run_file, out=out, yes=True, to_train=True).synthesize()


def deploy(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    yes: Yes = False,
    run_only: Annotated[
        bool, typer.Option("--run-only", help="Not what runs share: for continuous integration, which may not.")
    ] = False,
    change_shared: Annotated[
        bool, typer.Option("--change-shared", help="Also where that takes away what other runs of the bucket use.")
    ] = False,
    out: Out = _OUT,
    program: With = None,
) -> None:
    """Build all that the run needs and start it: shows each plan, and asks before it changes anything."""
    from infra.operate.doctor import report  # noqa: PLC0415, clients that only this needs

    with _told():
        operation = _operation(run_file, out=out, yes=yes, to_train=True, change_shared=change_shared)
        findings = operation.examine()
        report.show(Console(), findings)
        if report.has_problems(findings):
            raise typer.Exit(1)
        chosen = _chosen(program)
        api = CloudApi(project=operation.deployment.project)
        operation.need_state_bucket(api)
        stacks = operation.synthesize()
        if run_only:
            stacks = [stack for stack in stacks if stack.name not in PROJECT_WIDE]
        if chosen in ("cdktf", "cdktn"):
            typer.echo(f"{chosen} asks by itself; it adopts no bucket that is there, and guards nothing that is shared")
            operation.with_cdktf(chosen, "deploy", stacks, yes=yes)
        else:
            operation.apply(Terraform(program=chosen), stacks, api=api)
        try:
            stopped = bool(to_start(sizes(operation.deployment), operation.deployment))
        except (ProgramError, StoreError) as error:  # all is done by now: what can't be seen is no failure
            typer.echo(f"\nwhether its groups have VMs can't be seen: {error}", err=True)
            stopped = False
        if stopped:
            typer.echo(f"\ndeployed. It was stopped, or over: spot start {run_file} gives its VMs back")
        else:
            typer.echo(f"\ndeployed. See it start: spot logs {run_file} --follow")


def diff(run_file: RunFile, out: Out = _OUT, program: With = None) -> None:
    """Show what `spot deploy` would change."""
    with _told():
        operation = _operation(run_file, out=out, yes=True, to_train=True)
        changes = operation.diff(Terraform(program=_chosen(program, cdktf=False)), operation.synthesize())
        typer.echo("\nnothing would change" if not changes else "\nspot deploy would change this")


def start(run_file: RunFile) -> None:
    """Give the run's VMs back: after `spot stop`, or once what made it give up is mended."""
    deployment = _deployment(run_file)
    with _told():
        started = to_start(sizes(deployment), deployment)
        for group in started:
            resize(group, group.size)
            typer.echo(f"{group.name}: asked for {group.size} VM{'s' if group.size > 1 else ''}")
        typer.echo(f"see it start: spot logs {run_file} --follow" if started else "every group has its VMs already")


def stop(run_file: RunFile, yes: Yes = False) -> None:
    """Take the run's VMs away and keep all else: each saves first, and `spot start` goes on at that step."""
    deployment = _deployment(run_file)
    with _told():
        running = [each.group for each in sizes(deployment) if each.size]
        if not running:
            typer.echo("no group has VMs")
            return
        if not (yes or typer.confirm(f"Stop {', '.join(group.name for group in running)}?")):
            raise Declined("nothing was done")
        for group in running:
            resize(group, 0)
            typer.echo(f"{group.name}: its VMs save, and go")


def destroy(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    yes: Yes = False,
    foundation: Annotated[bool, typer.Option(help="Also what all runs of the bucket share.")] = False,
    delete_bucket: Annotated[bool, typer.Option(help="With --foundation: also the bucket and all in it.")] = False,
    out: Out = _OUT,
    program: With = None,
) -> None:
    """Take the run's VMs, dashboard and identity away. The bucket stays, unless told otherwise."""
    if delete_bucket and not foundation:
        raise typer.BadParameter("the bucket belongs to the foundation: add --foundation")
    with _told():
        operation = _operation(run_file, out=out, yes=yes)
        stacks = operation.synthesize(delete_bucket=delete_bucket)
        terraform = Terraform(program=_chosen(program, cdktf=False))
        operation.destroy(terraform, stacks, foundation=foundation, delete_bucket=delete_bucket)


def logs(  # noqa: PLR0917, typer makes options of them
    run_file: RunFile,
    event: Annotated[str | None, typer.Option(help="Only this event, such as notice or window_used.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Only where NAME=VALUE, as in KIND=preempted.")] = None,
    priority: Annotated[str | None, typer.Option(help=f"This and worse: {', '.join(SEVERITIES)}.")] = None,
    since: Annotated[str | None, typer.Option(help="How far back, such as 30min or 2h.")] = None,
    lines: Annotated[int, typer.Option(min=1, max=100000, help="At most so many.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    trainer: Annotated[bool, typer.Option(help="Only what the trainer prints.")] = False,
    cloud: Annotated[bool, typer.Option(help="From Cloud Logging, also of VMs that are gone.")] = False,
    vm: OneVm = None,
) -> None:
    """The agent's journal: on the VM through IAP, or, with --cloud, in Cloud Logging."""
    if priority is not None and priority not in SEVERITIES:
        raise typer.BadParameter(f"--priority is one of {', '.join(SEVERITIES)}")
    for text in field or ():
        if "=" not in text:
            raise typer.BadParameter(f"--field {text}: write NAME=VALUE")
    deployment = _deployment(run_file)
    wanted = Wanted(event=event, priority=priority, since=since, fields=field or (), lines=lines, trainer=trainer)
    with _told():
        if cloud:
            raise typer.Exit(hand_over(gcloud_logging(wanted, deployment=deployment), timeout=_LOGGING_S))
        target = choose_vm(deployment, name=vm)
        raise typer.Exit(open_shell(deployment, target, journalctl(wanted, follow=follow), endless=follow))


def ssh(
    run_file: RunFile,
    command: Annotated[list[str] | None, typer.Argument(help="After --: a command instead of a shell.")] = None,
    vm: OneVm = None,
) -> None:
    """A shell on the run's VM, through IAP: it needs no address on the internet."""
    deployment = _deployment(run_file)
    with _told():
        raise typer.Exit(open_shell(deployment, choose_vm(deployment, name=vm), command or ()))


def preempt_one(run_file: Path, *, vm: str | None, yes: bool) -> None:
    """What `spot drill RUN.yaml` does: Compute Engine takes one Spot VM away, for real."""
    deployment = _deployment(run_file)
    with _told():
        target = choose_vm(deployment, name=vm)
        if not target.spot:
            raise ProgramError(f"{target.name} is no Spot VM: Compute Engine would not take it away")
        question = f"Take {target.name} in {target.zone} away now? The run saves, and goes on on the VM that follows."
        if not (yes or typer.confirm(question)):
            raise Declined("nothing was done")
        preempt(deployment, target)
        typer.echo(f"{target.name} was told. See what it made of it: spot logs {run_file} --cloud --event window_used")


def _deployment(run_file: Path, *, to_train: bool = False) -> Deployment:
    try:
        return Deployment.of(load(run_file, to_train=to_train))
    except NotDeployable as error:
        typer.echo(f"{run_file}: {error}", err=True)
        raise typer.Exit(2) from None


def _operation(
    run_file: Path, *, out: Path, yes: bool, to_train: bool = False, change_shared: bool = False
) -> Operation:
    return Operation(
        deployment=_deployment(run_file, to_train=to_train),
        run_file=run_file.resolve(),
        out=out.resolve(),
        change_shared=change_shared,
        say=typer.echo,
        ask=(lambda _question: True) if yes else typer.confirm,
    )


def _chosen(program: str | None, *, cdktf: bool = True) -> str:
    known = ("tofu", "terraform", *(("cdktf", "cdktn") if cdktf else ()))
    if program is None:
        return find(*known) or require(*known)
    if program not in known:
        raise typer.BadParameter(f"--with {program}: write one of {', '.join(known)}")
    return require(program)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What can go wrong is told in a few lines, without a traceback."""
    try:
        yield
    except NotLoggedIn as error:
        typer.echo(f"{error}\n    fix: gcloud auth application-default login", err=True)
        raise typer.Exit(1) from None
    except (ProgramError, ApiError, Declined, NotDeployable, StoreError, NewerFormatError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
