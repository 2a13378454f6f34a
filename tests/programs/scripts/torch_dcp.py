# saves as torch DCP does: `.metadata` last
# Group: Whose save it is
# Promise: its save, whole
# Expect: step-2/__0_0.distcp=2 step-2/.metadata step=2
# How: window=6

from told import SAVES, train_for, train_until_told, write

write("step-1/__0_0.distcp", "1")
write("step-1/.metadata", "1")
train_until_told()
write("step-2/__0_0.distcp", "2")
train_for(1.7)
write("step-2/.metadata.tmp", "2")
(SAVES / "step-2/.metadata.tmp").rename(SAVES / "step-2/.metadata")
train_for(60)
