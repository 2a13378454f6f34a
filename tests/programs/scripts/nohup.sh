# is started with `nohup`
# Group: Who hears the notice
# Promise: its save
# Expect: model.txt=2

nohup "$PYTHON" -c 'from told import *; train_until_told(); train_for(0.4); write("model.txt", "2")' >/dev/null
