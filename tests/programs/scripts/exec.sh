# is started by `exec` from a shell
# Group: Who hears the notice
# Promise: its save
# Expect: model.txt=2

exec "$PYTHON" -c '
from told import *
train_until_told()
write("model.txt", "2")
train_for(60)
'
