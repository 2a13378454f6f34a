"""All checks at once, each bounded in time, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

from infra.operate.api import ApiError, CloudApi, NotLoggedIn
from infra.operate.doctor.buckets import check_bucket, check_data, check_state_bucket
from infra.operate.doctor.finding import CloudCheck, Finding, Patient, ok, problem
from infra.operate.doctor.limits import check_agent, check_counts, check_policies
from infra.operate.doctor.machine import check_machine
from infra.operate.doctor.project import check_apis, check_billing, check_project
from infra.operate.doctor.quota import check_quota
from infra.operate.doctor.secret import check_secret
from infra.operate.doctor.tools import TOOL_CHECKS
from infra.stacks.deployment import Deployment

CLOUD_CHECKS: tuple[CloudCheck, ...] = (
    check_project,
    check_billing,
    check_apis,
    check_machine,
    check_quota,
    check_bucket,
    check_state_bucket,
    check_data,
    check_secret,
    check_counts,
    check_policies,
    check_agent,
)
ESSENTIAL: tuple[CloudCheck, ...] = (
    check_project,
    check_billing,
    check_apis,
    check_bucket,
    check_state_bucket,
    check_data,
    check_agent,
)
"""Without these a deployment would fail half way."""

_LIMIT_S = 60.0


def examine(
    deployment: Deployment | None, *, cloud_checks: Sequence[CloudCheck] = CLOUD_CHECKS, limit_s: float = _LIMIT_S
) -> list[Finding]:
    """The tools, and, where there is a deployment, all that it needs. Nothing is changed anywhere."""
    pool = ThreadPoolExecutor(max_workers=12, thread_name_prefix="check")
    try:
        end = monotonic() + limit_s
        tools = [_Answer(check.__name__, pool.submit(check)) for check in TOOL_CHECKS]
        login: list[Finding] = []
        cloud: list[_Answer] = []
        if deployment is not None:
            try:
                patient = Patient(deployment=deployment, api=CloudApi(project=deployment.project))
            except NotLoggedIn as error:
                login = [problem("credentials", str(error), "gcloud auth application-default login")]
            else:
                login = [ok("credentials", "application default credentials are good")]
                cloud = [_Answer(check.__name__, pool.submit(check, patient)) for check in cloud_checks]
        told = [answer.findings(end) for answer in tools], [login], [answer.findings(end) for answer in cloud]
        return [finding for group in told for findings in group for finding in findings]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Answer:
    check: str
    future: Future[list[Finding]]

    def findings(self, end: float) -> list[Finding]:
        """Waits until `end`, a time of the monotonic clock."""
        what = self.check.removeprefix("check_").replace("_", " ")
        try:
            return self.future.result(timeout=max(0.0, end - monotonic()))
        except TimeoutError:
            return [problem(what, "no answer in time", "try again")]
        except ApiError as error:
            return [problem(what, str(error), "try again")]
