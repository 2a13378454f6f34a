# writes a log beside its saves all the time
# Group: What else is in the folder
# Promise: its save; the log as it is
# Expect: step-2/model=2 train.log used<4
# How: window=8

from threading import Thread

from told import SAVES, train_for, train_until_told, write


def chatter() -> None:
    with (SAVES / "train.log").open("a", buffering=1) as log:
        while True:
            log.write("a line\n")
            train_for(0.01)


write("step-1/model", "1")
Thread(target=chatter, daemon=True).start()
train_until_told()
write("step-2/model", "2")
train_for(60)
