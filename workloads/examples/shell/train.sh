#!/bin/bash
# A shell script that "trains" in slices. It keeps its state in one file, which it renames into place when it is told to
# save, and goes on from it.
set -u
mkdir -p saves
step=0 value=1
[ -f saves/state ] && read -r step value < saves/state
save() {
  echo "$step $value" > saves/state.new && mv saves/state.new saves/state
}
trap save USR1
echo "begins at step $step"
while [ "$step" -lt 400 ]; do
  value=$(((value * 1103515245 + 12345) % 2147483648))
  step=$((step + 1))
  sleep 0.05
done
save
