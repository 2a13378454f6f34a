# is put into the background by a script that ends
# Group: Who hears the notice
# Promise: its save; that the script ended is said
# Expect: model.txt=2 event:left_behind

"$PYTHON" -c '
from told import *
hear()
train_for(1.0)
train_until_told()
write("model.txt", "2")
' &
sleep 0.3
