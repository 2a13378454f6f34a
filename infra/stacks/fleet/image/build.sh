#!/usr/bin/env bash
# Bakes a VM image with the bundle installed, so that a new VM fetches nothing and boot to first step is short: starts a
# small VM from the base image in the run's own subnet, as the run's identity, lets it install, stops it, makes the image,
# starts a VM of that and asks whether it has all. Takes some 15 minutes; cut off, it goes on where it was.
#
#   infra/stacks/fleet/image/build.sh PROJECT ZONE gs://BUCKET/packages/SHA256.tar.gz BASE_PROJECT/BASE_FAMILY SUBNET SERVICE_ACCOUNT
#
# SUBNET: projects/P/regions/R/subnetworks/S, as the foundation made it; its VMs come to the internet by NAT.
# SERVICE_ACCOUNT: the run's, spot-RUN_ID@PROJECT.iam.gserviceaccount.com, which may read the bundle.
# Then write in the run file `cloud: {image: projects/PROJECT/global/images/family/spot-training}`. The run file, secrets
# and the agent's start stay the startup script's.
set -euo pipefail

(($# == 6)) || { sed -n '6,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
project=$1 zone=$2 bundle=$3 base=$4 subnet=$5 account=$6
[[ $bundle =~ ^gs://[a-z0-9._-]+/.+/([0-9a-f]{64})\.tar\.gz$ ]] || { echo "not a bundle's address: $bundle" >&2; exit 2; }
digest=${BASH_REMATCH[1]}
image=spot-training-${digest:0:12}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gcloud=(gcloud --project="$project" --quiet)

# start NAME DISK_OPTION... METADATA_FILES: a VM that powers itself off when it is done. One from before goes on.
start() {
  local name=$1 files=$2
  shift 2
  "${gcloud[@]}" compute instances describe "$name" --zone="$zone" --format='value(name)' >/dev/null 2>&1 && return
  "${gcloud[@]}" compute instances create "$name" --zone="$zone" --machine-type=e2-standard-4 "$@" \
    --boot-disk-size=100GB --boot-disk-type=pd-ssd --subnet="$subnet" --no-address --service-account="$account" \
    --scopes=cloud-platform --max-run-duration=45m --instance-termination-action=STOP \
    --metadata="enable-guest-attributes=TRUE,spot-bundle=$bundle" --metadata-from-file="$files"
}

# await NAME: until it is off; then what it said in guest attributes must be the bundle's digest.
await() {
  local name=$1 deadline=$((SECONDS + 2700)) status said
  until status=$("${gcloud[@]}" compute instances describe "$name" --zone="$zone" --format='value(status)') &&
    [[ $status == TERMINATED ]]; do
    ((SECONDS < deadline)) || { echo "$name did not finish within 45 min: see its serial port" >&2; exit 1; }
    sleep "${SPOT_POLL_S:-10}"
  done
  said=$("${gcloud[@]}" compute instances get-guest-attributes "$name" --zone="$zone" \
    --query-path=spot-training/baked --format='value(value)' || true)
  [[ $said == "$digest" ]] || { echo "$name has not the bundle: see its serial port, then delete it" >&2; exit 1; }
}

delete() { "${gcloud[@]}" compute instances delete "$1" --zone="$zone" >/dev/null; }

if ! "${gcloud[@]}" compute images describe "$image" --format='value(name)' >/dev/null 2>&1; then
  start "bake-$image" "startup-script=$here/bake.sh,spot-startup=$here/../runtime/startup.sh" \
    --image-project="${base%%/*}" --image-family="${base#*/}"
  await "bake-$image"
  # Without the family yet: nobody boots from it before it was tried.
  "${gcloud[@]}" compute images create "$image" --source-disk="bake-$image" --source-disk-zone="$zone" \
    --labels="managed-by=spot-training,bundle=${digest:0:12}"
  delete "bake-$image"
fi
start "try-$image" "startup-script=$here/try.sh" --image="$image" --image-project="$project"
await "try-$image"
delete "try-$image"
"${gcloud[@]}" compute images update "$image" --family=spot-training
echo "projects/$project/global/images/$image"
