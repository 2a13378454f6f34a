# deletes its old saves while the new one is written
# Group: How it saves
# Promise: its newest save; those that are deleted meanwhile hold nothing up
# Expect: step-6/model=6 !step-1
# How: window=5

import shutil

from told import SAVES, train_for, train_until_told, write

write("step-1/model", "1")
train_until_told()
for step in range(2, 7):
    write(f"step-{step}/model", str(step))
    train_for(0.2)
    shutil.rmtree(SAVES / f"step-{step - 1}")
train_for(60)
