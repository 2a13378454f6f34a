# overwrites one file in place, again and again
# Group: How it saves
# Promise: a save as it stood between two writes
# Expect: model.txt=done
# How: window=5

import time

from told import train_until_told, write

write("model.txt", "0 done")
train_until_told()
for _ in range(5):
    write("model.txt", "torn")
    time.sleep(0.3)
write("model.txt", "done")
time.sleep(60)
