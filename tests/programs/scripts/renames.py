# writes aside and renames: `model.pt.tmp`
# Group: How it saves
# Promise: its save; what is aside still is left out
# Expect: model.txt=2 !next.tmp
# How: window=5

from told import SAVES, train_for, train_until_told, write

write("model.txt", "1")
train_until_told()
write("model.txt.tmp", "2", pause=0.6)
(SAVES / "model.txt.tmp").replace(SAVES / "model.txt")
write("next.tmp", "half")
train_for(60)
