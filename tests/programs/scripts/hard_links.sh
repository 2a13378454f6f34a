# keeps its newest save under a second name, a hard link
# Group: How it saves
# Promise: both names
# Expect: step-2/model=2 best/model=2

mkdir -p "$SAVES/step-1" "$SAVES/best" && echo 1 >"$SAVES/step-1/model" && ln "$SAVES/step-1/model" "$SAVES/best/model"
trap 'told=1' USR1
touch "$READY"
until [ "$told" ]; do sleep 0.05; done
mkdir "$SAVES/step-2" && echo 2 >"$SAVES/step-2/model" && ln -f "$SAVES/step-2/model" "$SAVES/best/model"
while :; do sleep 0.1; done
