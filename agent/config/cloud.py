"""What the stacks build around a run in Google Cloud, where the run's machine alone does not say it."""

import ipaddress
import re
from collections.abc import Iterator

from pydantic import Field

from agent.config.refusal import Many, Refusal, Section

_MEMBER = re.compile(r"(user|group|serviceAccount|domain):[^\s@]+(@[^\s@]+)?")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


class Budget(Section):
    """An alert when a month's costs reach it. Google's budgets warn; they stop nothing."""

    monthly: int = Field(ge=1)
    """What a month may cost. Unit: whole units of the billing account's own currency. Default: required."""

    billing_account: str = Field(pattern=r"^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$")
    """The account that is billed, as in `gcloud billing accounts list`. Default: required."""


class Cloud(Section):
    """Where the stacks build, and for whom."""

    project: str = Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$", examples=["my-project"])
    """The Google Cloud project's id, not its name: 6 to 30 of a-z, 0-9 and `-`, as in my-project. Default: required."""

    state_bucket: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_.-]{1,61}[a-z0-9]$")
    """The bucket of Terraform's state, which no VM may read. Default: null (PROJECT-spot-state)."""

    subnet: str = "10.64.0.0/20"
    """Private addresses of the VMs, of which four are Google's own. Default: 10.64.0.0/20."""

    external_ip: bool = False
    """Whether VMs get an address that the internet can reach; without one they go out through NAT. Default: false."""

    image: str | None = Field(default=None, min_length=1)
    """The boot disk's image, or an image family, such as `projects/PROJECT/global/images/family/FAMILY`, of which a
    deployment takes the newest; it must know gVNIC, and bring the GPU's driver. Default: null (Google's Deep Learning
    VM for GPUs, Ubuntu 24.04 without)."""

    boot_disk_gb: int = Field(default=100, ge=20, le=65536)
    """Size of the boot disk. Unit: GB. Default: 100."""

    kms_key: str | None = Field(
        default=None, pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$"
    )
    """A key of yours that the bucket is encrypted with. Default: null (Google's own)."""

    grant_data: bool = True
    """Whether a deployment lets the VMs read `data.source` in a bucket that is not the run's. False: its owner does,
    with the command that `spot doctor` says. Default: true."""

    operators: Many[str] = ()
    """Who may log in to VMs and read buckets and logs, such as `user:ann@example.org`. Default: [] (project owners)."""

    alert_emails: Many[str] = ()
    """Where alerts go. Default: [] (they are shown in the console only)."""

    budget: Budget | None = None
    """When to warn of costs. Default: null (never)."""

    github: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$")
    """The GitHub repository whose workflows may deploy, without keys: OWNER/REPOSITORY. Default: null (none)."""

    def refusals(self) -> Iterator[Refusal]:
        try:
            network = ipaddress.IPv4Network(self.subnet)
        except ValueError as error:
            yield Refusal(("subnet",), str(error), 'write an address range, such as "10.64.0.0/20"')
        else:
            if not network.is_private or network.prefixlen > 29:
                why = "is not private" if not network.is_private else "has no room for VMs"
                yield Refusal(("subnet",), f"{self.subnet} {why}", 'write a private range, such as "10.64.0.0/20"')
        for place, member in enumerate(self.operators):
            if not _MEMBER.fullmatch(member):
                yield Refusal(
                    ("operators", place),
                    f"{member!r} is no member of a Google Cloud project",
                    "write user:EMAIL, group:EMAIL, serviceAccount:EMAIL or domain:NAME",
                )
        for place, email in enumerate(self.alert_emails):
            if not _EMAIL.fullmatch(email):
                yield Refusal(("alert_emails", place), f"{email!r} is no address", "write NAME@DOMAIN")
