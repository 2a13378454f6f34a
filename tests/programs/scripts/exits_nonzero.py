# saves when it is told, and exits with another status
# Group: How it ends
# Promise: its save
# Expect: model.txt=2 ending:preempted

import sys

from told import train_until_told, write

train_until_told()
write("model.txt", "2")
sys.exit(143)
