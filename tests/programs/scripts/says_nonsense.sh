# says that it saved a folder that is not there, or elsewhere
# Group: Whose save it is
# Promise: it is told so, on its standard error
# Expect: event:window_used

mkdir -p "$SAVES" && echo 1 >"$SAVES/model"
spot saved no-such-folder 2>&1 | grep -q 'no file in' || exit 1
spot saved /etc 2>&1 | grep -q 'is not in' || exit 1
trap 'exit 0' USR1
touch "$READY"
while :; do sleep 0.05; done
