# saves as Lightning does: one archive, `epoch=1-step=120.ckpt`
# Group: Whose save it is
# Promise: its save, once the archive has its end; its steps
# Expect: epoch=1-step=120.ckpt !epoch=1-step=130.ckpt step=120
# How: window=3.5

import zipfile

from told import SAVES, train_for, train_until_told

SAVES.mkdir(exist_ok=True)
train_until_told()
with zipfile.ZipFile(SAVES / "epoch=1-step=120.ckpt", "w") as archive:
    archive.writestr("data.pkl", "2")
whole = (SAVES / "epoch=1-step=120.ckpt").read_bytes()
(SAVES / "epoch=1-step=130.ckpt").write_bytes(whole[:60])
train_for(60)
