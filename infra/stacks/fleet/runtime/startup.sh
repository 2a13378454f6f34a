#!/usr/bin/env bash
# What a training VM does on each boot, from its instance template's `startup-script`: scratch disk, bundle, run file,
# secret, agent. Each stage says in the journal how long it took: `journalctl -t spot-startup EVENT=boot_stage`.
# Running it again changes nothing, and a trainer that runs goes on.
#
# It hands over to a unit of its own, spot-startup.service, which runs the stages again after each failure until the VM
# is old: a grant takes 2 to 7 minutes and more to spread, so that a VM of a new run is refused all things at first. A
# VM that has not come to its agent by then says so in Cloud Logging too, and counts: boot_failed.py.
#
# It reads these metadata attributes:
#   spot-run           the run file
#   spot-bundle        gs://BUCKET/packages/SHA256.tar.gz; an image that has this very bundle installed fetches nothing
#   spot-workload      the kind of workload: `command`, and what brings its own environment, needs nothing of what the
#                      trainers need
#   spot-wandb-secret  projects/P/secrets/S/versions/V, if any: the W&B key
#   spot-boot-failed   boot_failed.py; it reads spot-home, spot-group and spot-failed-boots
#
# GCE_METADATA_HOST, STORAGE_EMULATOR_HOST, SPOT_SECRETS_URL, SPOT_COMPUTE_URL, SPOT_LOGGING_URL and SPOT_DISK_DIR
# redirect it to a local cloud; on a VM they are not set.
set -euo pipefail
export LC_ALL=C

ETC=/etc/spot-training STATE=/run/spot-training HOME_DIR=/opt/spot-training SCRATCH=/mnt/scratch LABEL=spot-scratch
METADATA=http://${GCE_METADATA_HOST:-169.254.169.254}/computeMetadata/v1/instance
STORAGE=${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}
SECRETS=${SPOT_SECRETS_URL:-https://secretmanager.googleapis.com}
DISKS=${SPOT_DISK_DIR:-/dev/disk/by-id}
PATIENCE_S=120 # for each thing that is fetched, tries and pauses together
BOOT_S=${SPOT_BOOT_S:-1800} GRANTS_S=${SPOT_GRANTS_S:-900} # from the VM's start: all tries; those for a grant to spread
REDIRECTS=(GCE_METADATA_HOST STORAGE_EMULATOR_HOST SPOT_SECRETS_URL SPOT_COMPUTE_URL SPOT_LOGGING_URL SPOT_DISK_DIR SPOT_BOOT_S SPOT_GRANTS_S)

# --- the journal ----------------------------------------------------------------------------------------------------

now_ms() { date +%s%3N; }

tell() { # tell PRIORITY EVENT MESSAGE [FIELD=VALUE...]: 6 is news, 4 a warning, 3 an error
  local priority=$1 event=$2 message=$3
  shift 3
  printf 'spot-startup: %s %s %s\n' "$event" "$message" "$*" >&2
  printf '%s\n' "MESSAGE=$message" "EVENT=$event" "PRIORITY=$priority" SYSLOG_IDENTIFIER=spot-startup "$@" |
    logger --journald 2>/dev/null || true # no journal in a container's build
}

stage() { # stage NAME COMMAND...: how long it took, and whether the VM can go on without it
  local name=$1 begun
  shift
  begun=$(now_ms)
  STAGE=$name OUTCOME=ok
  rm -f "$STATE/refused"
  "$@" || OUTCOME=failed
  tell "$([[ $OUTCOME == ok ]] && echo 6 || echo 4)" boot_stage "$name: $OUTCOME" "STAGE=$name" \
    "DURATION_MS=$(($(now_ms) - begun))" "OUTCOME=$OUTCOME"
}

must() { # must NAME COMMAND...: a stage that nothing works without
  stage "$@"
  [[ $OUTCOME == ok ]] || give_up "$1 failed"
}

refused() { cat "$STATE/refused" 2>/dev/null || true; } # what answered 401 or 403 in this stage

age() { echo $(($(date +%s) - $(cat "$STATE/began"))); } # seconds since the VM's first try

give_up() {
  local why=$1 said
  said=$(refused)
  why+=${said:+: $said}
  if [[ ${TRY_AGAIN:-} ]] && (($(age) < BOOT_S)); then # no: nothing would be another the next time
    [[ $said ]] && why+='. A grant takes 2 to 7 minutes and more to spread'
    tell 4 boot_delayed "$why; tried again in 10 s, until $((BOOT_S / 60)) min after the start" "STAGE=${STAGE:-start}"
    exit 1
  fi
  tell 3 boot_failed "$why" "STAGE=${STAGE:-start}"
  if attribute spot-boot-failed >"$STATE/boot_failed.py"; then
    while IFS= read -r said; do
      tell 3 boot_gave_up "$said" "STAGE=${STAGE:-start}"
    done < <(
      timeout 120 python3 "$STATE/boot_failed.py" "${STAGE:-start}" "$why" "$(refused)"
    )
  fi
  exit 3
}

# --- what is fetched ------------------------------------------------------------------------------------------------

# fetch [CURL OPTION...] URL: to stdout, with bounded retries and jitter; 4 when there is no such thing (404).
fetch() {
  local end=$((SECONDS + PATIENCE_S)) into code
  into=$(mktemp "$STATE/fetch.XXXXXX")
  while :; do
    code=$(curl --silent --show-error --noproxy 169.254.169.254 --connect-timeout 3 --max-time 60 \
      --output "$into" --write-out '%{http_code}' "$@") || code=000
    case $code in
      200) cat "$into"; rm -f "$into"; return 0 ;;
      404) rm -f "$into"; return 4 ;;
      401 | 403) printf 'HTTP %s from %s\n' "$code" "${!#}" | tee "$STATE/refused" >&2; rm -f "$into"; return 1 ;;
      400) printf 'spot-startup: HTTP %s from %s\n' "$code" "${!#}" >&2; rm -f "$into"; return 1 ;;
    esac
    if ((SECONDS >= end)); then rm -f "$into"; return 1; fi
    sleep "0.$((RANDOM % 700 + 200))"
  done
}

attribute() { fetch --header 'Metadata-Flavor: Google' "$METADATA/attributes/$1"; } # 4: not set

# What needs the VM's token gets it through a pipe: a command line can be read by everyone on the VM.
fetch_as_vm() { fetch --header "@$STATE/authorization" "$1"; }

authorize() {
  (
    umask 077
    fetch --header 'Metadata-Flavor: Google' "$METADATA/service-accounts/default/token" |
      python3 -c 'import json, sys; print("Authorization: Bearer", json.load(sys.stdin)["access_token"])' \
        >"$STATE/authorization"
  )
}

# --- the stages -----------------------------------------------------------------------------------------------------

# Updates change drivers under a running trainer, and hold up the shutdown in which a checkpoint is saved.
quiet() {
  local units=(apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service unattended-upgrades.service)
  systemctl --quiet mask "${units[@]}" 2>/dev/null || true
  systemctl --quiet --no-block stop "${units[@]}" 2>/dev/null || true
}

# Local SSDs are empty after each preemption. Only they are formatted: a disk must be named as one, must not say that it
# is a persistent disk, and must hold nothing, or what this script put there before a reboot.
scratch() {
  local link disk model found=() target
  mountpoint --quiet "$SCRATCH" && return 0
  for link in "$DISKS"/google-local-nvme-ssd-* "$DISKS"/google-local-ssd-*; do
    [[ -b $link && $link != *-part* ]] || continue
    disk=$(readlink -f "$link")
    model=$(cat "/sys/block/${disk##*/}/device/model" 2>/dev/null || true)
    if [[ $model == *-pd* || $model == *PersistentDisk* ]]; then
      tell 4 disk_left_alone "$link is a persistent disk in spite of its name: not touched" "DISK=$disk"
      continue
    fi
    found+=("$disk")
  done
  ((${#found[@]})) || return 0
  mkdir -p "$SCRATCH"
  if ((${#found[@]} > 1)); then mdadm --quiet --assemble --scan --name="$LABEL" 2>/dev/null || true; fi
  for target in "${found[@]}" "/dev/md/$LABEL" /dev/md127; do
    if [[ $(blkid --probe --match-tag LABEL --output value "$target" 2>/dev/null) == "$LABEL" ]]; then
      mount -o noatime,discard "$target" "$SCRATCH"
      return
    fi
  done
  for disk in "${found[@]}"; do
    if [[ -n $(wipefs --noheadings "$disk") ]]; then
      tell 4 disk_left_alone "$disk holds something that is not ours: no scratch disk" "DISK=$disk"
      return 1
    fi
  done
  target=${found[0]}
  if ((${#found[@]} > 1)); then
    if command -v mdadm >/dev/null; then
      target=/dev/md/$LABEL
      mkdir -p /dev/md
      mdadm --quiet --create "$target" --name="$LABEL" --homehost=any --level=0 --run --force \
        --raid-devices="${#found[@]}" "${found[@]}" || return 1
    else
      tell 4 disk_left_alone "this image has no mdadm: of ${#found[@]} local SSDs only the first is used" "DISK=$target"
    fi
  fi
  mkfs.ext4 -q -F -m 0 -L "$LABEL" -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 "$target" || return 1
  mount -o noatime,discard "$target" "$SCRATCH" || return 1
  chmod 1777 "$SCRATCH"
}

# The run file holds no secret: any process on the VM can read it from the metadata server anyway.
run_file() {
  local stages
  attribute spot-run >"$STATE/run.yaml" || return 1
  stages=$(attribute spot-stages) || { (($? == 4)) || return 1; stages=; } # those of this VM, where others have others
  printf 'SPOT_STAGES=%s\n' "$stages" >"$STATE/stages.env"
  install -D -m 0644 "$STATE/run.yaml" "$ETC/run.yaml.new" || return 1
  mv -T "$ETC/run.yaml.new" "$ETC/run.yaml"
}

bundle() {
  local address digest name path
  address=$(attribute spot-bundle) || return 1
  name=${address##*/} digest=${address##*/} digest=${digest%.tar.gz}
  if [[ ! $address =~ ^gs://[a-z0-9._-]+/.+/[0-9a-f]{64}\.tar\.gz$ ]]; then
    tell 3 bundle_refused "spot-bundle is $address; it should be gs://BUCKET/packages/SHA256.tar.gz"
    TRY_AGAIN=
    return 1
  fi
  if [[ -x $HOME_DIR/venv/bin/spot-agent && $(cat "$HOME_DIR/bundle" 2>/dev/null) == "$digest" ]]; then return 0; fi
  path=${address#gs://*/}
  address=${address#gs://}
  authorize || return 1
  fetch_as_vm "$STORAGE/storage/v1/b/${address%%/*}/o/${path//\//%2F}?alt=media" >"$STATE/$name" || return 1
  if ! printf '%s  %s\n' "$digest" "$STATE/$name" | sha256sum --check --status; then
    tell 3 bundle_refused "what the bucket gave is not $digest: build and upload the bundle again"
    TRY_AGAIN=
    rm -f "$STATE/$name"
    return 1
  fi
  rm -rf "$STATE/bundle"
  mkdir -p "$STATE/bundle" || return 1
  tar -xzf "$STATE/$name" -C "$STATE/bundle" --no-same-owner || return 1
  rm -f "$STATE/$name"
  install_bundle "$STATE/bundle" || return 1
  printf '%s\n' "$digest" >"$HOME_DIR/bundle"
  rm -rf "$STATE/bundle"
}

# The Python that has the image's PyTorch, else the system's. The agent is not enabled: at the next boot this script
# starts it, with the run file of that boot.
install_bundle() {
  local python part=
  # A program of the user's own brings what it needs; what else fails here is told by the next stages.
  [[ $(attribute spot-workload || true) == command ]] && part=--agent-only
  for python in /opt/conda/bin/python3 /opt/python/bin/python3 /usr/local/bin/python3 /usr/bin/python3; do
    if "$python" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torch") is None or sys.version_info < (3, 11))' 2>/dev/null; then
      "$1/install.sh" --no-enable --system-site-packages --python "$python" $part "$1"
      return
    fi
  done
  can_make_environments || return 1
  "$1/install.sh" --no-enable $part "$1"
}

# Ubuntu's own Python comes without that.
can_make_environments() {
  python3 -c 'import ensurepip, venv' 2>/dev/null && return 0
  export DEBIAN_FRONTEND=noninteractive
  timeout "$PATIENCE_S" apt-get -qq -o DPkg::Lock::Timeout=60 update >/dev/null &&
    timeout "$PATIENCE_S" apt-get -qq -y -o DPkg::Lock::Timeout=60 install --no-install-recommends python3-venv >/dev/null
}

# In memory only, for root only, never on a command line, in the journal or in the metadata.
secret() {
  local name
  name=$(attribute spot-wandb-secret) || { (($? == 4)) && rm -f "$STATE/secrets.env"; return; }
  authorize || return 1
  (
    umask 077
    fetch_as_vm "$SECRETS/v1/$name:access" | python3 -c '
import base64, json, sys
key = base64.b64decode(json.load(sys.stdin)["payload"]["data"]).decode().strip()
if not key or not key.isprintable() or " " in key:
    sys.exit("the secret is not a W&B key: one line without spaces")
print(f"WANDB_API_KEY={key}")' >"$STATE/secrets.new" && mv -T "$STATE/secrets.new" "$STATE/secrets.env"
  )
}

environment() {
  : >"$STATE/vm.env"
  if mountpoint --quiet "$SCRATCH"; then
    mkdir -p "$SCRATCH/cache"
    printf 'SPOT_SCRATCH=%s\nXDG_CACHE_HOME=%s/cache\n' "$SCRATCH" "$SCRATCH" >"$STATE/vm.env"
  fi
}

# Not waited for: systemd may hold the agent back until this script is over.
start_agent() { systemctl start --no-block spot-agent.service; }

# Tried again by systemd, which also sees a script that was killed. No metadata waits: they say nothing of the grants.
under_systemd() {
  local name options=()
  case $(systemctl show --property=ActiveState --value spot-startup.service) in active | activating | reloading) return ;; esac
  for name in "${REDIRECTS[@]}"; do [[ -n ${!name:-} ]] && options+=("--setenv=$name=${!name}"); done
  install -m 0700 "$0" "$STATE/startup.sh"
  systemd-run --quiet --collect --unit=spot-startup --service-type=exec --setenv=TRY_AGAIN=1 "${options[@]}" \
    --property=Restart=on-failure --property=RestartSec=10s --property=RestartPreventExitStatus=3 \
    --property=StartLimitIntervalSec=0 --property=RuntimeMaxSec=40min --property=TimeoutStopSec=5s \
    --property=StandardOutput=journal+console --property=StandardError=journal+console \
    bash "$STATE/startup.sh" --stages
}

main() {
  local begun
  begun=$(now_ms)
  ((EUID == 0)) || { echo 'startup.sh: needs root' >&2; exit 1; }
  mkdir -p "$STATE" "$ETC"
  [[ -s $STATE/began ]] || date +%s >"$STATE/began"
  if [[ -z ${1:-} && -f $0 && -d /run/systemd/system ]]; then under_systemd; return; fi
  exec 9>"$STATE/lock"
  flock --wait 600 9 || give_up 'another run of this script has not ended for 10 min'
  trap 'rm -f "$STATE/authorization" "$STATE"/fetch.*' EXIT
  stage quiet quiet
  if [[ ${1:-} == --bake ]]; then # an image is made of this VM: infra/stacks/fleet/image
    must bundle bundle
    return
  fi
  stage scratch scratch
  must run_file run_file
  stage secret secret
  # The run can go on without it, and does so where the right to read it has not come by now.
  if [[ $OUTCOME == failed && -n $(refused) && ${TRY_AGAIN:-} ]] && (($(age) < GRANTS_S)); then give_up 'secret failed'; fi
  stage environment environment
  must bundle bundle
  must start_agent start_agent
  tell 6 boot_ready 'spot-agent starts' "DURATION_MS=$(($(now_ms) - begun))" \
    "UPTIME_MS=$(awk '{ printf "%d", $1 * 1000 }' /proc/uptime)"
}

main "$@"
