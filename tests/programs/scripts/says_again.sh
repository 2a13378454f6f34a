# had saved just before it was told, and only says so: `spot saved`
# Group: Whose save it is
# Promise: that save; the window is over with its word
# Expect: model.txt=1 used<3
# How: window=8

trap 'spot saved && touch "$SAVES/../answered"' USR1
mkdir -p "$SAVES"
echo 1 > "$SAVES/model.txt"
touch "$READY"
for _ in $(seq 600); do sleep 0.1; done
