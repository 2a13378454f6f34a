# says which folder it has saved, with `spot_training.saved`, and its step
# Group: Whose save it is
# Promise: what it called saved; its record speaks of its steps
# Expect: out/b=2 step=7 !out2

import spot_training
from told import train_for, train_until_told, write

write("out/b", "1")
train_until_told()
write("out/b", "2")
spot_training.saved("out", step=7)
train_for(60)
