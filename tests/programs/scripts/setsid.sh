# makes a session of its own: `setsid`
# Group: Who hears the notice
# Promise: its save; it is ended with the rest
# Expect: model.txt=2

setsid --wait "$PYTHON" -c 'from told import *; train_until_told(); write("model.txt", "2"); train_for(60)'
