# has odd names: spaces, quotes, newlines, umlauts
# Group: How it saves
# Promise: its save, every name as it is
# Expect: a b=2 ü=2 -n=2

mkdir -p "$SAVES"
trap 'told=1' USR1
touch "$READY"
until [ "$told" ]; do sleep 0.05; done
for name in 'a b' ü -n $'new\nline' '"'; do echo 2 >"$SAVES/$name"; done
while :; do sleep 0.1; done
