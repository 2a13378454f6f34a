# does not get its save done in the window
# Group: How it saves
# Promise: the save before: half a save is never taken
# Expect: checkpoint-1/model=1 !checkpoint-2
# How: window=3

from told import train_until_told, write

write("checkpoint-1/model", "1")
train_until_told()
write("checkpoint-2/model", "2", pause=60)
