# overwrites all in place and writes `done` last
# Group: Whose save it is
# Promise: what is no older than `done`
# Expect: model=2 optimizer=2
# How: complete_when=done window=6

from told import train_for, train_until_told, write

write("model", "1")
write("optimizer", "1")
write("done", "")
train_until_told()
write("model", "2")
train_for(1.5)
write("optimizer", "2")
write("done", "")
train_for(60)
