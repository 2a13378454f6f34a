# has half a save in its folder since it crashed
# Group: What else is in the folder
# Promise: its new save; the leftover holds nothing up and is left out
# Expect: step-3/model.safetensors !step-2 used<3
# How: window=8

import os

from told import SAVES, train_for, train_until_told, write

HEADER = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + b"x"
for step, content in ((1, WHOLE), (2, WHOLE[:20])):
    write(f"step-{step}/model.safetensors", "")
    (SAVES / f"step-{step}/model.safetensors").write_bytes(content)
    os.utime(SAVES / f"step-{step}/model.safetensors", (1.7e9, 1.7e9))
train_until_told()
(SAVES / "step-3").mkdir()
(SAVES / "step-3/model.safetensors").write_bytes(WHOLE)
train_for(60)
