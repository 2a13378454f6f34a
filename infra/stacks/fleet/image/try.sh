#!/usr/bin/env bash
# Runs on a VM that was made of the new image (build.sh): is all there that a boot without the bucket needs? Says so in
# guest attributes, and powers off.
set -uo pipefail

METADATA=http://${GCE_METADATA_HOST:-169.254.169.254}/computeMetadata/v1/instance
HOME_DIR=/opt/spot-training

has_all() {
  "$HOME_DIR/venv/bin/spot-agent" --help >/dev/null &&
    "$HOME_DIR/venv/bin/python" -c 'import torch' &&
    [[ -f /etc/systemd/system/spot-agent.service && -s /etc/machine-id ]]
}
if has_all; then said=$(cat "$HOME_DIR/bundle"); else said=lacking; fi
curl --silent --show-error --fail --retry 5 --max-time 20 --header 'Metadata-Flavor: Google' --request PUT \
  --data "$said" "$METADATA/guest-attributes/spot-training/baked"
systemctl poweroff
