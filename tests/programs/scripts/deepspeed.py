# saves as DeepSpeed does: `latest` names the folder last
# Group: Whose save it is
# Promise: the save that it names; its steps
# Expect: global_step10/mp_rank_00_model_states.pt=1 latest=global_step10 !global_step20 step=10
# How: window=3.5

from told import train_for, train_until_told, write

write("global_step10/mp_rank_00_model_states.pt", "1")
write("latest", "global_step10")
train_until_told()
write("global_step20/mp_rank_00_model_states.pt", "2")
train_for(60)
