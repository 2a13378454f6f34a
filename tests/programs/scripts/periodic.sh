# saves by itself and never heard of a notice; the power is cut
# Group: How it saves
# Promise: what it had saved by the last cadence
# Expect: model=
# How: every=1_s strike=power

trap '' USR1
mkdir -p "$SAVES"
touch "$READY"
while :; do echo $((n += 1)) >"$SAVES/model.new" && mv "$SAVES/model.new" "$SAVES/model"; sleep 3; done
