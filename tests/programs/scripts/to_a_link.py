# saves to a folder that is a link to another disk
# Group: How it saves
# Promise: its save
# Expect: model.txt=2

from pathlib import Path

from told import SAVES, train_for, train_until_told, write

disk = Path(f"{SAVES}-disk")
disk.mkdir()
SAVES.symlink_to(disk)
write("model.txt", "1")
train_until_told()
write("model.txt", "2")
train_for(60)
