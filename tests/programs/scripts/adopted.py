# is found running by another agent, before its notice
# Group: How it ends
# Promise: all of the same: its save, its steps
# Expect: checkpoint-2/model=2 step=2
# How: adopt=1

from told import train_for, train_until_told, write

write("checkpoint-1/model", "1")
train_until_told()
write("checkpoint-2/model", "2")
train_for(60)
