# writes `done` into each save last; the run file says `complete_when`
# Group: Whose save it is
# Promise: the save that has it
# Expect: a/model=1 !b
# How: complete_when=*/done window=3.5

from told import train_for, train_until_told, write

write("a/model", "1")
write("a/done", "")
train_until_told()
write("b/model", "2")
train_for(60)
