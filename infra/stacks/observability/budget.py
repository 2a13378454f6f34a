"""The run's budget: mails at half, nine tenths and all of it, and when the month is on its way beyond."""

from __future__ import annotations

from cdktn_provider_google.billing_budget import (
    BillingBudget,
    BillingBudgetAllUpdatesRule,
    BillingBudgetAmount,
    BillingBudgetAmountSpecifiedAmount,
    BillingBudgetBudgetFilter,
    BillingBudgetThresholdRules,
)
from cdktn_provider_google.data_google_project import DataGoogleProject
from cdktn_provider_google.monitoring_notification_channel import MonitoringNotificationChannel
from cdktn_provider_google.provider import GoogleProvider
from constructs import Construct

from agent.config import Budget
from infra.stacks.deployment import Deployment

_SHARES = (0.5, 0.9, 1.0)
_CHANNELS = 5  # Google's limit


def define_budget(
    scope: Construct, *, deployment: Deployment, budget: Budget, channels: list[MonitoringNotificationChannel]
) -> None:
    # The budgets' API asks whose quota a person's call counts against; the others take it from the resource.
    provider = GoogleProvider(
        scope,
        "google-billing",
        alias="billing",
        project=deployment.project,
        billing_project=deployment.project,
        user_project_override=True,
    )
    project = DataGoogleProject(scope, "project", project_id=deployment.project)
    BillingBudget(
        scope,
        "budget",
        provider=provider,
        billing_account=budget.billing_account,
        display_name=f"spot-training: {deployment.run.run_id}",
        budget_filter=BillingBudgetBudgetFilter(
            projects=[f"projects/{project.number}"],  # by number: Google answers with it whatever it was told
            labels={"spot-run": deployment.run.run_id},
            calendar_period="MONTH",
            credit_types_treatment="INCLUDE_ALL_CREDITS",
        ),
        amount=BillingBudgetAmount(
            # Without a currency it is the account's own; any other is refused.
            specified_amount=BillingBudgetAmountSpecifiedAmount(units=str(budget.monthly))
        ),
        threshold_rules=[
            *(BillingBudgetThresholdRules(threshold_percent=share, spend_basis="CURRENT_SPEND") for share in _SHARES),
            BillingBudgetThresholdRules(threshold_percent=1.0, spend_basis="FORECASTED_SPEND"),
        ],
        all_updates_rule=BillingBudgetAllUpdatesRule(
            monitoring_notification_channels=[channel.name for channel in channels[:_CHANNELS]],
            disable_default_iam_recipients=False,
        )
        if channels
        else None,
    )
