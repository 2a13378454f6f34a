# saves when it is told, and exits with status 0
# Group: How it ends
# Promise: its save; that is no end of the run
# Expect: model.txt=2 ending:preempted

from told import train_until_told, write

train_until_told()
write("model.txt", "2")
