# turns a link, `latest`, to its newest save
# Group: How it saves
# Promise: its save, and the link, which never leads to half a save
# Expect: step-2/model=2 latest/model=2

from told import SAVES, train_for, train_until_told, write

write("step-1/model", "1")
(SAVES / "latest").symlink_to("step-1")
train_until_told()
write("step-2/model", "2")
(SAVES / "new").symlink_to("step-2")
(SAVES / "new").replace(SAVES / "latest")
train_for(60)
