# has a shell in front that forwards the signal
# Group: Who hears the notice
# Promise: its save
# Expect: model.txt=2

"$PYTHON" -c 'from told import *; train_until_told(); write("model.txt", "2")' &
trap 'kill -USR1 %1' USR1
until wait %1; do [ -e "$SAVES/model.txt" ] && break; done
