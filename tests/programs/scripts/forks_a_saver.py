# forks a process that saves, and ends itself meanwhile
# Group: How it saves
# Promise: its save: what a program leaves behind has the window's time
# Expect: model.txt=22
# How: window=6

import os

from told import train_until_told, write

write("model.txt", "1")
train_until_told()
if os.fork() == 0:
    os.setsid()
    write("model.txt", "2", pause=1.5)
    os._exit(0)
