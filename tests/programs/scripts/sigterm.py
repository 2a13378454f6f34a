# saves on SIGTERM, and the run file does not say so
# Group: Who hears the notice
# Promise: its save: where nobody hears the notice, SIGTERM is sent
# Expect: model.txt=2

import signal

from told import hear, ready, told, train_for, write

hear(signal.SIGTERM)
ready()
while not told():
    train_for(0.02)
write("model.txt", "2")
