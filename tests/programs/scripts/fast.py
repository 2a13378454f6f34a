# saves within milliseconds when it is told, and trains on
# Group: How it saves
# Promise: its save; the window is over at once
# Expect: model.txt=2 lost<3 used<3

from told import train_for, train_until_told, write

write("model.txt", "1")
train_until_told()
write("model.txt", "2")
train_for(60)
