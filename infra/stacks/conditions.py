"""Conditions of grants, in the Common Expression Language as IAM knows it."""

from __future__ import annotations

import re

from infra.stacks.deployment import NotDeployable

LIST_PREFIX = "storage.googleapis.com/objectListPrefix"
"""IAM's attribute for the prefix that a listing asks for; only listings have it."""


def objects_below(bucket: str, prefix: str) -> str:
    """The object's name begins with `prefix`, which ends in '/': else runs/a would include runs/ab."""
    _check(bucket, prefix)
    return f'resource.name.startsWith("projects/_/buckets/{bucket}/objects/{prefix}")'


def objects_and_listings_below(bucket: str, prefix: str) -> str:
    """As `objects_below`, and so does what a listing of the bucket asks for."""
    return f'{objects_below(bucket, prefix)} || api.getAttribute("{LIST_PREFIX}", "").startsWith("{prefix}")'


def firewalls_ending(end: str) -> str:
    """Of firewall rules, those whose name ends so."""
    _check(end)
    return f'resource.type != "compute.googleapis.com/Firewall" || resource.name.endsWith("{end}")'


def ssh_only() -> str:
    """A tunnel to port 22."""
    return "destination.port == 22"


def _check(*names: str) -> None:
    """What ends up between quotes must mean there what it means here, to Terraform and to IAM."""
    for name in names:
        if not re.fullmatch(r"[\w./+=@: -]*", name):
            raise NotDeployable(
                f"{name!r} can't be in a condition of IAM\n    fix: use letters, digits, '.', '_' and '-'"
            )
