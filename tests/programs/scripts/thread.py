# saves in a thread of its own, while it trains on
# Group: How it saves
# Promise: its save, whole
# Expect: model.txt=22
# How: window=6

import threading

from told import train_for, train_until_told, write

write("model.txt", "1")
train_until_told()
threading.Thread(target=write, args=("model.txt", "2"), kwargs={"pause": 1.3}).start()
train_for(60)
