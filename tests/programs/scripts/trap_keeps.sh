# has a shell in front that keeps the signal until its child has ended
# Group: Who hears the notice
# Promise: its save: what comes to nothing for two seconds is told to those below
# Expect: model.txt=2
# How: window=6

trap 'echo heard' USR1
"$PYTHON" -c 'from told import *; train_until_told(); write("model.txt", "2")'
true
