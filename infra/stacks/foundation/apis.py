"""The APIs that the stacks and the VMs need. Plain data, for who has not the bindings."""

SERVICES = (
    "billingbudgets.googleapis.com",  # cloud.budget
    "cloudbilling.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",  # cloud.github: a workflow's token becomes that of our identity
    "iap.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "oslogin.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",  # cloud.github
)
"""The same whatever a run file says: what one run's file left out would be missing for another of the same bucket. An
API that is on and not called costs nothing."""
