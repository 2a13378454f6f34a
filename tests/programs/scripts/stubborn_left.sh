# ends and leaves something that ignores SIGTERM
# Group: How it ends
# Promise: it is ended by force after the grace
# Expect: model=9 ending:complete used<5
# How: strike=end

setsid bash -c 'trap "" TERM; while :; do sleep 0.1; done' &
mkdir -p "$SAVES" && echo 9 >"$SAVES/model"
touch "$READY"
sleep 0.2
