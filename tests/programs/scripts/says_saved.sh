# says `spot saved` after each save, and overwrites it in place
# Group: Whose save it is
# Promise: exactly what it called saved, though it writes on at once
# Expect: model=2

mkdir -p "$SAVES" && echo 1 >"$SAVES/model" && spot saved
trap 'told=1' USR1
touch "$READY"
until [ "$told" ]; do sleep 0.02; done
echo 2 >"$SAVES/model"
sleep 0.1
echo 2 >"$SAVES/optimizer"
spot saved .
while :; do echo torn >"$SAVES/model"; sleep 0.05; done
