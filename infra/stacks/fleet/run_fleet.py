"""All that one run needs to train: an identity, a health check, templates, groups."""

from __future__ import annotations

from constructs import Construct

from infra.stacks.deployment import Deployment, shorten
from infra.stacks.fleet.group import define_group
from infra.stacks.fleet.health_check import define_health_check
from infra.stacks.fleet.identity import RunIdentity
from infra.stacks.fleet.plan import groups_of
from infra.stacks.fleet.template import define_template


class RunFleet(Construct):
    """The groups of one run. `bundle`: gs:// path of the packages that its VMs install."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, bundle: str) -> None:
        super().__init__(scope, name)
        run = deployment.run
        health = define_health_check(self, name=shorten(f"spot-{run.run_id}", 63), run=run)
        groups = groups_of(deployment)
        identity = RunIdentity(self, "identity", deployment=deployment)
        after = list(identity.grants)
        for group in reversed(groups):  # the last first: a group's VMs start the one that follows
            template = define_template(
                self,
                group=group,
                deployment=deployment,
                bundle=bundle,
                service_account=identity.email,
                after=identity.acts,
            )
            after.append(define_group(self, group=group, template=template, health=health, after=[*after]))
