"""A private network: VMs without addresses of their own, out through NAT, to Google's APIs on Google's own way.

In comes what is named here, and ranks from VMs of the same run (infra/stacks/fleet/identity.py). Nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdktn import ITerraformDependable
from cdktn_provider_google.compute_firewall import (
    ComputeFirewall,
    ComputeFirewallAllow,
    ComputeFirewallDeny,
    ComputeFirewallLogConfig,
)
from cdktn_provider_google.compute_network import ComputeNetwork
from cdktn_provider_google.compute_router import ComputeRouter
from cdktn_provider_google.compute_router_nat import ComputeRouterNat, ComputeRouterNatLogConfig
from cdktn_provider_google.compute_subnetwork import ComputeSubnetwork
from constructs import Construct

from infra.stacks.deployment import Deployment

HEALTH_PORT = "9620"
LAST_PRIORITY = 65534
"""One before Google's own rule, which denies as well and logs nothing."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What may come in."""

    name: str
    why: str
    sources: tuple[str, ...]
    port: str


OPENINGS = (
    Opening(
        name="iap-ssh",
        why="SSH from Identity-Aware Proxy, which lets in whom IAM names",
        sources=("35.235.240.0/20",),
        port="22",
    ),
    Opening(
        name="health-checks",
        why="Google's health checkers ask the agent how it is",
        sources=("130.211.0.0/22", "35.191.0.0/16"),
        port=HEALTH_PORT,
    ),
)


def make_network(scope: Construct, *, deployment: Deployment, after: list[ITerraformDependable]) -> ComputeSubnetwork:
    """The network with its only subnet, NAT and firewall. Names: `deployment.network`, `deployment.subnetwork`."""
    name = deployment.network
    network = ComputeNetwork(
        scope,
        "network",
        name=name,
        description="Training VMs",
        auto_create_subnetworks=False,
        routing_mode="REGIONAL",
        depends_on=after,
    )
    subnetwork = ComputeSubnetwork(
        scope,
        "subnetwork",
        name=name,
        network=network.id,
        region=deployment.region,
        ip_cidr_range=deployment.cloud.subnet,
        private_ip_google_access=True,  # so that checkpoints do not go through NAT, which bills by the GB
        stack_type="IPV4_ONLY",
    )
    router = ComputeRouter(scope, "router", name=name, network=network.id, region=deployment.region)
    ComputeRouterNat(
        scope,
        "nat",
        name=name,
        router=router.name,
        region=deployment.region,
        nat_ip_allocate_option="AUTO_ONLY",
        source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
        log_config=ComputeRouterNatLogConfig(enable=True, filter="ERRORS_ONLY"),
    )
    for opening in OPENINGS:
        ComputeFirewall(
            scope,
            f"allow-{opening.name}",
            name=f"{name}-{opening.name}",
            description=opening.why,
            network=network.id,
            direction="INGRESS",
            priority=1000,
            source_ranges=list(opening.sources),
            target_tags=[deployment.vm_tag],
            allow=[ComputeFirewallAllow(protocol="tcp", ports=[opening.port])],
        )
    ComputeFirewall(
        scope,
        "deny-rest",
        name=f"{name}-deny-rest",
        description="Everything else, and a line in the log for it",
        network=network.id,
        direction="INGRESS",
        priority=LAST_PRIORITY,
        source_ranges=["0.0.0.0/0"],
        deny=[ComputeFirewallDeny(protocol="all")],
        log_config=ComputeFirewallLogConfig(metadata="EXCLUDE_ALL_METADATA"),
    )
    return subnetwork
