# has spoken once, and has a save of which it has not
# Group: Whose save it is
# Promise: the one of which it has; the other is half
# Expect: step-1/model=1 !step-2 step=1
# How: window=4

import spot_training
from told import train_for, train_until_told, write

write("step-1/model", "1")
spot_training.saved("step-1")
train_until_told()
write("step-2/model", "2")
train_for(60)
