# saves as Accelerate's `save_state` does: random states last
# Group: Whose save it is
# Promise: its save, whole; a half one is left out
# Expect: checkpoint_1/optimizer.bin=1 !checkpoint_2
# How: window=3.5

from told import train_until_told, write

write("checkpoint_1/optimizer.bin", "1")
write("checkpoint_1/random_states_0.pkl", "1")
train_until_told()
write("checkpoint_2/optimizer.bin", "2")
write("checkpoint_2/more", "2", pause=60)
