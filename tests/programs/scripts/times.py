# finds its newest save by time, and its files' modes matter
# Group: What else is in the folder
# Promise: times and modes as they were
# Expect: step-1/model=1 old:step-1/model mode:step-2/run.sh=750

import os

from told import SAVES, train_until_told, write

write("step-1/model", "1")
os.utime(SAVES / "step-1/model", (1.6e9, 1.6e9))
write("step-2/run.sh", "2")
(SAVES / "step-2/run.sh").chmod(0o750)
train_until_told()
