# writes a folder aside and renames it
# Group: How it saves
# Promise: its save, whole
# Expect: step-2/a=2 step-2/b=2 !tmp-step-3
# How: window=6

mkdir -p "$SAVES/step-1" && echo 1 >"$SAVES/step-1/a"
save() {
  mkdir "$SAVES/tmp-step-2" && echo 2 >"$SAVES/tmp-step-2/a"
  sleep 1.2
  echo 2 >"$SAVES/tmp-step-2/b" && mv "$SAVES/tmp-step-2" "$SAVES/step-2"
  mkdir "$SAVES/tmp-step-3"
}
trap 'told=1' USR1
touch "$READY"
until [ "$told" ]; do sleep 0.05; done
save
while :; do sleep 0.1; done
