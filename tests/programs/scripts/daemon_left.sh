# ends and leaves a server behind, in a session of its own
# Group: How it ends
# Promise: the server gets the grace, and is ended
# Expect: model=9 ending:complete event:left_behind
# How: strike=end

setsid --fork sleep 60
mkdir -p "$SAVES" && echo 9 >"$SAVES/model"
touch "$READY"
