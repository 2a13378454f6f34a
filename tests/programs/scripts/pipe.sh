# is piped into `tee`
# Group: Who hears the notice
# Promise: its save, and its output
# Expect: model.txt=2

set -o pipefail
"$PYTHON" -c '
from told import *
train_until_told()
train_for(0.4)
write("model.txt", "2")
print("saved")
' 2>&1 | tee "$SAVES.log"
