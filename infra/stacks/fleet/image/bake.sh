#!/usr/bin/env bash
# Runs on the VM that an image is made of (build.sh): the startup script's stages that need no run, then away with what
# makes this VM this VM, and power off.
set -euo pipefail

METADATA=http://${GCE_METADATA_HOST:-169.254.169.254}/computeMetadata/v1/instance
curl_metadata() { curl --silent --show-error --fail --retry 5 --max-time 20 --header 'Metadata-Flavor: Google' "$@"; }

# The image's own updates run at its first boot, and hold apt's lock for minutes.
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq -o DPkg::Lock::Timeout=600
apt-get install -y -qq -o DPkg::Lock::Timeout=600 --no-install-recommends mdadm python3-venv

curl_metadata "$METADATA/attributes/spot-startup" >/run/spot-startup.sh
bash /run/spot-startup.sh --bake

rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
: >/etc/machine-id
journalctl --rotate --vacuum-time=1s >/dev/null 2>&1 || true
curl_metadata --request PUT --data "$(cat /opt/spot-training/bundle)" "$METADATA/guest-attributes/spot-training/baked"
systemctl poweroff
