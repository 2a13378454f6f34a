# writes its save slowly, in one file
# Group: How it saves
# Promise: its save, whole: nothing is whole that somebody has open for writing
# Expect: model.txt=22
# How: window=6

from told import train_for, train_until_told, write

write("model.txt", "1")
train_until_told()
write("model.txt", "2", pause=1.6)
train_for(60)
