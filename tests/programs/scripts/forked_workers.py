# has workers that were forked, and have its handlers
# Group: Who hears the notice
# Promise: its save: the signal is for the program, not for them
# Expect: model.txt=2 !worker

import os
import time

from told import hear, ready, told, write

hear()
for _ in range(2):
    if os.fork() == 0:
        while not told():
            time.sleep(0.02)
        write("worker", "told")
        os._exit(0)
ready()
while not told():
    time.sleep(0.02)
time.sleep(0.3)
write("model.txt", "2")
time.sleep(60)
