# overwrites one file, and has event files open all the time
# Group: What else is in the folder
# Promise: its save; the event file as it is
# Expect: model.txt=2 events.out.tfevents.1 wandb/run/a used<4
# How: window=8

from threading import Thread

from told import SAVES, train_for, train_until_told, write


def chatter(path: str) -> None:
    with (SAVES / path).open("a", buffering=1) as log:
        while True:
            log.write("a line\n")
            train_for(0.01)


write("model.txt", "1")
(SAVES / "wandb/run").mkdir(parents=True)
for path in ("events.out.tfevents.1", "wandb/run/a"):
    Thread(target=chatter, args=(path,), daemon=True).start()
train_until_told()
write("model.txt", "2")
train_for(60)
