#!/usr/bin/env bash
# Installs the agent on a VM, or into an image, from an unpacked bundle (infra/stacks/packages/bundle.py); installs a newer one beside
# it while a trainer goes on; takes it away again. Running it twice changes nothing.
set -euo pipefail

usage() {
  cat <<'USAGE'
install.sh [--root DIR] [--python PATH] [--system-site-packages] [--agent-only] [--no-enable] [--no-start] [BUNDLE]
install.sh [--root DIR] --uninstall

  BUNDLE                  the unpacked bundle: wheel, locked requirements, units [this script's own folder]; PyTorch,
                          where the Python has none, comes from pip's index
  --root DIR              an image's file system, mounted here; it has Python already. Implies --no-start
  --python PATH           the Python to install for, 3.11 or newer [python3]
  --system-site-packages  let the trainers see the image's own packages, PyTorch above all
  --agent-only            without what the trainers need, for `kind: command`
  --no-enable             don't start the agent at each boot: the startup script does, with the run file of that boot
  --no-start              leave a running agent as it is
  --uninstall             stop the agent, which saves first, and remove all but run file, data and journal
USAGE
}

root='' bundle='' python=python3 site='' parts=(agent workloads) enable=1 start=1 uninstall=0
while (($#)); do
  case $1 in
    --root) root=${2:?--root needs a folder}; shift ;;
    --root=*) root=${1#*=} ;;
    --python) python=${2:?--python needs a path}; shift ;;
    --system-site-packages) site=--system-site-packages ;;
    --agent-only) parts=(agent) ;;
    --no-enable) enable=0 ;;
    --no-start) start=0 ;;
    --uninstall) uninstall=1 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) bundle=$1 ;;
  esac
  shift
done
root=${root%/}
bundle=$(cd "${bundle:-$(dirname "${BASH_SOURCE[0]}")}" && pwd)

HOME_DIR=/opt/spot-training
UNITS=(spot-agent.service spot.slice spot-trainer.slice)
# They change drivers and libraries under a running trainer, and hold up the shutdown in which a checkpoint is saved.
MASKED=(apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service unattended-upgrades.service)

say() { printf 'spot-training: %s\n' "$*"; }
die() { printf 'spot-training: %s\n' "$*" >&2; exit 1; }
inside() { if [[ -n $root ]]; then chroot "$root" "$@"; else "$@"; fi; }
live() { [[ -z $root && -d /run/systemd/system ]]; }
systemctl_there() { systemctl ${root:+--root="$root"} --quiet "$@"; }

((EUID == 0)) || die 'needs root: run it with sudo'

if ((uninstall)); then
  if live; then systemctl stop spot-agent.service 2>/dev/null || true; fi
  systemctl_there disable spot-agent.service 2>/dev/null || true
  systemctl_there unmask "${MASKED[@]}" 2>/dev/null || true
  for unit in "${UNITS[@]}"; do rm -f "$root/etc/systemd/system/$unit"; done
  rm -f "$root"/etc/systemd/{logind,journald}.conf.d/spot-training.conf "$root/etc/tmpfiles.d/spot-training.conf"
  rm -f "$root/usr/local/bin/spot"
  rm -rf "$root${HOME_DIR:?}"
  if live; then systemctl daemon-reload; fi
  say 'removed; /etc/spot-training, /var/lib/spot-training and the journal are still there'
  exit 0
fi

shopt -s nullglob
wheels=("$bundle"/spot_training-*.whl)
((${#wheels[@]} == 1)) || die "$bundle holds ${#wheels[@]} wheels of spot-training; it should hold one: unpack a bundle into an empty folder"
[[ -f $bundle/requirements-agent.txt ]] || die "$bundle lacks requirements-agent.txt: is it an unpacked bundle?"
[[ -f $bundle/requirements-workloads.txt ]] || parts=(agent) # built with --agent-only
inside "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer, not $python"
inside "$python" -c 'import ensurepip, venv' || die 'this Python makes no virtual environments: apt-get install python3-venv'

# One folder a version, so that a trainer that still runs keeps the files that it was started from.
made_of=$(cat "$bundle"/requirements-*.txt "$bundle"/pytorch.txt* "${wheels[0]}" | sha256sum | cut -c1-16)-${parts[*]: -1}${site:+-site}
version=$HOME_DIR/versions/$made_of
if [[ ! -f $root$version/.complete ]]; then
  say "installing $(basename "${wheels[0]}") to $version"
  rm -rf "$root${version:?}"
  mkdir -p "$root$version/bundle"
  cp "${wheels[0]}" "$bundle"/requirements-*.txt "$root$version/bundle/"
  index=()
  if [[ -d $bundle/wheelhouse ]]; then
    cp -r "$bundle/wheelhouse" "$root$version/bundle/"
    index=(--no-index --find-links "$version/bundle/wheelhouse")
  fi
  inside "$python" -m venv ${site:+"$site"} "$version/venv"
  pip=("$version/venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-cache-dir)
  for part in "${parts[@]}"; do
    inside "${pip[@]}" --require-hashes "${index[@]}" -r "$version/bundle/requirements-$part.txt"
  done
  if [[ -f $bundle/requirements-tracking.txt ]]; then # built with --tracking: without its client the metrics wait in the bucket
    inside "${pip[@]}" --require-hashes "${index[@]}" -r "$version/bundle/requirements-tracking.txt" ||
      say 'no client of Weights & Biases: pip says why above. The run trains all the same, and spot track sends later'
  fi
  if [[ -f $bundle/pytorch.txt && ${parts[*]} == *workloads* ]] &&
    ! inside "$version/venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))'; then
    cp "$bundle/pytorch.txt" "$root$version/bundle/"
    say "this Python has no PyTorch: installing $(<"$bundle/pytorch.txt"), gigabytes. An image that has it boots in seconds"
    inside "${pip[@]}" ${index:+--find-links "$version/bundle/wheelhouse"} -r "$version/bundle/pytorch.txt" ||
      die "no PyTorch: pip says why above; bake an image that has it, or name one in cloud.image"
  fi
  inside "${pip[@]}" --no-deps --no-index "$version/bundle/$(basename "${wheels[0]}")"
  inside "$version/venv/bin/python" -m compileall -q "$version/venv/lib" || true # some libraries carry files for newer Pythons
  rm -rf "$root${version:?}/bundle"
  touch "$root$version/.complete"
fi

before=$(readlink "$root$HOME_DIR/venv" || true)
ln -sfn "$version/venv" "$root$HOME_DIR/venv.new"
mv -T "$root$HOME_DIR/venv.new" "$root$HOME_DIR/venv"
mkdir -p "$root/usr/local/bin"
ln -sfn "$HOME_DIR/venv/bin/spot" "$root/usr/local/bin/spot"
# The version before stays, for a trainer that was started from it; older ones go.
for old in "$root$HOME_DIR"/versions/*; do
  case $old/venv in "$root$version/venv" | "$root$before") ;; *) rm -rf "$old" ;; esac
done

changed=0
put() { # put FILE FOLDER: copies what differs
  if ! cmp -s "$bundle/systemd/$1" "$root$2/$(basename "$1")"; then
    install -D -m 0644 "$bundle/systemd/$1" "$root$2/$(basename "$1")"
    changed=1
  fi
}
for unit in "${UNITS[@]}"; do put "$unit" /etc/systemd/system; done
put logind.conf.d/spot-training.conf /etc/systemd/logind.conf.d
put journald.conf.d/spot-training.conf /etc/systemd/journald.conf.d
put tmpfiles.d/spot-training.conf /etc/tmpfiles.d
systemctl_there mask "${MASKED[@]}" 2>/dev/null
if ((enable)); then systemctl_there enable spot-agent.service; else systemctl_there disable spot-agent.service 2>/dev/null; fi
mkdir -p "$root/etc/spot-training"

if live; then
  systemd-tmpfiles --create /etc/tmpfiles.d/spot-training.conf || true # a container has a read-only /sys
  if ((changed)); then
    systemctl daemon-reload
    systemctl try-restart systemd-journald.service || true
    systemctl reload-or-restart systemd-logind.service || true # a system without logind
    journalctl --flush || true
  fi
  systemctl stop --no-block apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service 2>/dev/null || true
  pid=$(systemctl show --property=MainPID --value spot-agent.service)
  if ((start && pid)) && { ((changed)) || ! grep --quiet --null-data "^$version/" "/proc/$pid/cmdline"; }; then
    say 'the running agent makes way for this version; its trainer goes on'
    systemctl reload spot-agent.service
  fi
fi
say "installed $version"
