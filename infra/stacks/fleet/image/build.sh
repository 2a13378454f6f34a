#!/usr/bin/env bash
# Bakes a VM image with the bundle installed, so that a new VM fetches nothing and boot to first step is short: starts a
# small VM from the base image, lets it install, stops it, makes the image, deletes the VM. Takes some 10 minutes.
#
#   infra/stacks/fleet/image/build.sh PROJECT ZONE gs://BUCKET/packages/SHA256.tar.gz BASE_PROJECT/BASE_FAMILY [SERVICE_ACCOUNT]
#
# Then write in the run file `cloud: {image: projects/PROJECT/global/images/family/spot-training}`. The VM's service
# account must be able to read the bundle. The run file, secrets and the agent's start stay the startup script's.
set -euo pipefail

(($# >= 4)) || { sed -n '5,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
project=$1 zone=$2 bundle=$3 base=$4 account=${5:-}
[[ $bundle =~ ^gs://[a-z0-9._-]+/.+/([0-9a-f]{64})\.tar\.gz$ ]] || { echo "not a bundle's address: $bundle" >&2; exit 2; }
digest=${BASH_REMATCH[1]}
image=spot-training-${digest:0:12}
vm=bake-$image
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gcloud=(gcloud --project="$project" --quiet)

cleanup() { "${gcloud[@]}" compute instances delete "$vm" --zone="$zone" >/dev/null 2>&1 || true; }
trap cleanup EXIT

# It powers itself off when it is done, and says in guest attributes how that went.
"${gcloud[@]}" compute instances create "$vm" --zone="$zone" --machine-type=e2-standard-4 \
  --image-project="${base%%/*}" --image-family="${base#*/}" --boot-disk-size=100GB --boot-disk-type=pd-ssd \
  ${account:+--service-account="$account"} --scopes=cloud-platform --no-address --shielded-secure-boot \
  --max-run-duration=45m --instance-termination-action=DELETE \
  --metadata="enable-guest-attributes=TRUE,spot-bundle=$bundle" \
  --metadata-from-file="startup-script=$here/bake.sh,spot-startup=$here/../runtime/startup.sh"

deadline=$((SECONDS + 2400))
until status=$("${gcloud[@]}" compute instances describe "$vm" --zone="$zone" --format='value(status)') &&
  [[ $status == TERMINATED ]]; do
  ((SECONDS < deadline)) || { echo "$vm did not finish within 40 min: see its serial port" >&2; exit 1; }
  sleep 10
done
result=$("${gcloud[@]}" compute instances get-guest-attributes "$vm" --zone="$zone" --query-path=spot-training/baked \
  --format='value(value)' || true)
[[ $result == "$digest" ]] || { echo "$vm could not install the bundle: see its serial port" >&2; exit 1; }
"${gcloud[@]}" compute images create "$image" --source-disk="$vm" --source-disk-zone="$zone" --family=spot-training \
  --labels="managed-by=spot-training,bundle=${digest:0:12}"
echo "projects/$project/global/images/$image"
