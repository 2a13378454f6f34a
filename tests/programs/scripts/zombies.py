# leaves zombies and double forks
# Group: How it ends
# Promise: its save; nothing of it is left
# Expect: model.txt=2

import os
import time

from told import train_until_told, write

if os.fork() == 0:
    os._exit(0)  # nobody asks for its status
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
train_until_told()
write("model.txt", "2")
time.sleep(60)
