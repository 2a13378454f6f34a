# saves outside of its checkpoint folder
# Group: What else is in the folder
# Promise: nothing, and no claim that anything is safe: all of its work is lost, and the record says so
# Expect: nothing lost>0

from pathlib import Path

from told import SAVES, train_until_told

train_until_told()
Path(f"{SAVES}-elsewhere").write_text("2")
